"""A DUIS header in its plain form, byte by byte: the only place in the core that looks at text."""

from libc.string cimport memchr, memcmp

cdef enum:
    MESSAGE_LIMIT = 65536               # bytes looked at
    START_LIMIT = 1024                  # bytes up to the end of the start tag of RequestID
    PADDING = 64                        # white space around a value: never more than a reader of XML allows
    EUI = 23                            # an EUI-64: eight bytes in hexadecimal, and hyphens


cdef struct Piece:                      # of a message; it does not own its bytes
    const char* at
    Py_ssize_t size


cdef struct Plain:                      # what a header says
    Piece user
    Piece target
    Piece counter
    Piece variant
    Piece reference
    Piece srv


cdef struct Cursor:
    const char* at
    const char* end                     # nothing is read from here on
    Piece prefix                        # of every element


cdef inline Py_ssize_t start_of(Piece message) noexcept nogil:
    """Bytes up to the end of the first ``RequestID>``; 0 where there is none early enough."""
    cdef const char* at = message.at
    cdef const char* end = message.at + (message.size if message.size < START_LIMIT else START_LIMIT)
    while at < end:
        at = <const char*>memchr(at, c'>', end - at)
        if at == NULL:
            return 0
        at += 1
        if at - message.at >= 10 and memcmp(at - 10, b"RequestID>", 10) == 0:
            return at - message.at
    return 0


cdef inline bint is_digit(char byte) noexcept nogil:
    return c'0' <= byte <= c'9'


cdef inline bint is_hexadecimal(char byte) noexcept nogil:
    return is_digit(byte) or c'a' <= byte <= c'f' or c'A' <= byte <= c'F'


cdef inline char upper(char byte) noexcept nogil:
    return byte - 32 if c'a' <= byte <= c'z' else byte


cdef inline bint skip(Cursor* cursor, const char* text, Py_ssize_t size) noexcept nogil:
    """Go past exactly these bytes."""
    if cursor.end - cursor.at < size or memcmp(cursor.at, text, size) != 0:
        return False
    cursor.at += size
    return True


cdef inline void skip_white(Cursor* cursor, Py_ssize_t most) noexcept nogil:
    while cursor.at < cursor.end and most > 0 and (cursor.at[0] == c' ' or cursor.at[0] == c'\t'
                                                   or cursor.at[0] == c'\r' or cursor.at[0] == c'\n'):
        cursor.at += 1
        most -= 1


cdef inline bint skip_digits(Cursor* cursor, Py_ssize_t most) noexcept nogil:
    """Go past one digit or more, at most so many."""
    cdef const char* begin = cursor.at
    while cursor.at < cursor.end and cursor.at - begin < most and is_digit(cursor.at[0]):
        cursor.at += 1
    return cursor.at > begin


cdef inline bint begin(Cursor* cursor, const char* name, Py_ssize_t size) noexcept nogil:
    """Go past a start tag, of which `name` has the ``>``, and the white space behind it."""
    cdef const char* back = cursor.at
    if skip(cursor, b"<", 1) and skip(cursor, cursor.prefix.at, cursor.prefix.size) and skip(cursor, name, size):
        skip_white(cursor, PADDING)
        return True
    cursor.at = back
    return False


cdef inline bint finish(Cursor* cursor, const char* name, Py_ssize_t size) noexcept nogil:
    """Go past white space, the end tag, and the white space behind it."""
    skip_white(cursor, PADDING)
    if not (skip(cursor, b"</", 2) and skip(cursor, cursor.prefix.at, cursor.prefix.size)
            and skip(cursor, name, size)):
        return False
    skip_white(cursor, MESSAGE_LIMIT)
    return True


cdef inline bint take_eui(Cursor* cursor, Piece* piece) noexcept nogil:
    cdef Py_ssize_t index
    if cursor.end - cursor.at < EUI:
        return False
    for index in range(EUI):
        if not (cursor.at[index] == c'-' if index % 3 == 2 else is_hexadecimal(cursor.at[index])):
            return False
    piece.at = cursor.at
    piece.size = EUI
    cursor.at += EUI
    return True


cdef inline bint take_ids(Cursor* cursor, Plain* plain) noexcept nogil:
    """Take ``originator:target:counter``; a counter of 20 digits may be too large, and is left to others."""
    skip_white(cursor, PADDING)
    if not (take_eui(cursor, &plain.user) and skip(cursor, b":", 1) and take_eui(cursor, &plain.target)
            and skip(cursor, b":", 1)):
        return False
    plain.counter.at = cursor.at
    if not skip_digits(cursor, 19):
        return False
    plain.counter.size = cursor.at - plain.counter.at
    if plain.counter.at[0] == c'0' and plain.counter.size > 1:
        return False
    return finish(cursor, b"RequestID>", 10)


cdef inline bint take_variant(Cursor* cursor, Plain* plain) noexcept nogil:
    if begin(cursor, b"FirstInSequence>", 16):
        if not (skip(cursor, b"true", 4) or skip(cursor, b"false", 5) or skip(cursor, b"0", 1)
                or skip(cursor, b"1", 1)) or not finish(cursor, b"FirstInSequence>", 16):
            return False
    if not begin(cursor, b"CommandVariant>", 15) or cursor.at >= cursor.end or not c'1' <= cursor.at[0] <= c'8':
        return False
    plain.variant.at = cursor.at
    plain.variant.size = 1
    cursor.at += 1
    return finish(cursor, b"CommandVariant>", 15)


cdef inline bint take_references(Cursor* cursor, Plain* plain) noexcept nogil:
    """Take Service Reference and its variant, which begins with it."""
    cdef int depth = 0
    if not begin(cursor, b"ServiceReference>", 17):
        return False
    plain.reference.at = cursor.at
    if not (skip_digits(cursor, 3) and skip(cursor, b".", 1) and skip_digits(cursor, 3)):
        return False
    plain.reference.size = cursor.at - plain.reference.at
    if not (finish(cursor, b"ServiceReference>", 17) and begin(cursor, b"ServiceReferenceVariant>", 24)):
        return False
    plain.srv.at = cursor.at
    if not skip(cursor, plain.reference.at, plain.reference.size):
        return False
    while depth < 2 and skip(cursor, b".", 1):
        if not skip_digits(cursor, 3):
            return False
        depth += 1
    plain.srv.size = cursor.at - plain.srv.at
    return finish(cursor, b"ServiceReferenceVariant>", 24)


cdef inline bint take_header(Piece message, Py_ssize_t start, Piece prefix, Plain* plain) noexcept nogil:
    """Take what stands from `start`, behind ``RequestID>``, to the end of the header; False: not the plain form."""
    cdef Cursor cursor
    cursor.at = message.at + start
    cursor.end = message.at + (message.size if message.size < MESSAGE_LIMIT else MESSAGE_LIMIT)
    cursor.prefix = prefix
    return (take_ids(&cursor, plain) and take_variant(&cursor, plain) and take_references(&cursor, plain)
            and skip(&cursor, b"</", 2) and skip(&cursor, prefix.at, prefix.size) and skip(&cursor, b"Header>", 7))
