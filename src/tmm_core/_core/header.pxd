"""A DUIS header in its plain form, byte by byte: the only place in the core that looks at text."""

from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy

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
    const char* end                     # of the header


cdef inline const char* end_of(Piece piece) noexcept nogil:
    return piece.at + piece.size


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


cdef inline uint64_t eight(const char* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


cdef inline bint are_pairs(uint64_t word, uint64_t between) noexcept nogil:
    """Whether eight bytes are hyphens where `between` has ones, and hexadecimal digits elsewhere: without a branch."""
    cdef uint64_t lower = word | <uint64_t>0x2020202020202020
    # A sum has its highest bit where a byte is at least '0', more than '9'; at least 'a', more than 'f'.
    cdef uint64_t digits = (word + <uint64_t>0x5050505050505050) & ~(word + <uint64_t>0x4646464646464646)
    cdef uint64_t letters = (lower + <uint64_t>0x1F1F1F1F1F1F1F1F) & ~(lower + <uint64_t>0x1919191919191919)
    cdef uint64_t right = (((digits | letters) & ~word) | between) & <uint64_t>0x8080808080808080
    return right == <uint64_t>0x8080808080808080 and not (word ^ <uint64_t>0x2D2D2D2D2D2D2D2D) & between


cdef inline bint take_eui(Cursor* cursor, Piece* piece) noexcept nogil:
    """Take ``XX-XX-XX-XX-XX-XX-XX-XX``, as its bytes 0 to 7, 8 to 15 and 15 to 22."""
    if cursor.end - cursor.at < EUI:
        return False
    cdef uint64_t outer = eight(b"\0\0\xff\0\0\xff\0\0"), inner = eight(b"\xff\0\0\xff\0\0\xff\0")
    piece.at = cursor.at
    piece.size = EUI
    cursor.at += EUI
    return (are_pairs(eight(piece.at), outer) and are_pairs(eight(piece.at + 8), inner)
            and are_pairs(eight(piece.at + 15), outer))


cdef inline bint take_counter(Cursor* cursor, Piece* piece) noexcept nogil:
    """A counter of 20 digits may be too large, and is left to others."""
    piece.at = cursor.at
    if not skip_digits(cursor, 19):
        return False
    piece.size = cursor.at - piece.at
    return piece.at[0] != c'0' or piece.size == 1


cdef inline bint take_variant(Cursor* cursor, Piece* piece) noexcept nogil:
    if cursor.at >= cursor.end or not c'1' <= cursor.at[0] <= c'8':
        return False
    piece.at, piece.size = cursor.at, 1
    cursor.at += 1
    return True


cdef inline bint take_reference(Cursor* cursor, Piece* piece) noexcept nogil:
    piece.at = cursor.at
    if not (skip_digits(cursor, 3) and skip(cursor, b".", 1) and skip_digits(cursor, 3)):
        return False
    piece.size = cursor.at - piece.at
    return True


cdef inline bint take_srv(Cursor* cursor, Piece reference, Piece* piece) noexcept nogil:
    """It begins with its Service Reference."""
    cdef int depth = 0
    piece.at = cursor.at
    if not skip(cursor, reference.at, reference.size):
        return False
    while depth < 2 and skip(cursor, b".", 1):
        if not skip_digits(cursor, 3):
            return False
        depth += 1
    piece.size = cursor.at - piece.at
    return True


cdef inline bint skip_first_in_sequence(Cursor* cursor) noexcept nogil:
    """Go past an element that need not be there; False: it is not as it should be."""
    if not begin(cursor, b"FirstInSequence>", 16):
        return True
    return ((skip(cursor, b"true", 4) or skip(cursor, b"false", 5) or skip(cursor, b"0", 1) or skip(cursor, b"1", 1))
            and finish(cursor, b"FirstInSequence>", 16))


cdef inline Cursor cursor_of(Piece message) noexcept nogil:
    cdef Cursor cursor
    cursor.at = message.at
    cursor.end = message.at + (message.size if message.size < MESSAGE_LIMIT else MESSAGE_LIMIT)
    return cursor


cdef inline bint take_header(Piece message, Py_ssize_t start, Piece prefix, Plain* plain) noexcept nogil:
    """Take what stands from `start`, behind ``RequestID>``, to the end of the header; False: not the plain form."""
    cdef Cursor cursor = cursor_of(message)
    cursor.at += start
    cursor.prefix = prefix
    skip_white(&cursor, PADDING)
    if not (take_eui(&cursor, &plain.user) and skip(&cursor, b":", 1) and take_eui(&cursor, &plain.target)
            and skip(&cursor, b":", 1) and take_counter(&cursor, &plain.counter)
            and finish(&cursor, b"RequestID>", 10) and skip_first_in_sequence(&cursor)
            and begin(&cursor, b"CommandVariant>", 15) and take_variant(&cursor, &plain.variant)
            and finish(&cursor, b"CommandVariant>", 15)
            and begin(&cursor, b"ServiceReference>", 17) and take_reference(&cursor, &plain.reference)
            and finish(&cursor, b"ServiceReference>", 17)
            and begin(&cursor, b"ServiceReferenceVariant>", 24)
            and take_srv(&cursor, plain.reference, &plain.srv) and finish(&cursor, b"ServiceReferenceVariant>", 24)
            and skip(&cursor, b"</", 2) and skip(&cursor, prefix.at, prefix.size) and skip(&cursor, b"Header>", 7)):
        return False
    plain.end = cursor.at
    return True


cdef inline bint skip_alike(Cursor* cursor, const char* begin, const char* end) noexcept nogil:
    return skip(cursor, begin, end - begin)


cdef inline bint take_alike(Piece message, const char* other, Plain* seen, Plain* plain) noexcept nogil:
    """Take the header of a message that is like another, whose header was taken, in all but its six values.

    What the other way would take: the values are taken alike, and what stands between them is the same.
    """
    cdef Cursor cursor = cursor_of(message)
    return (skip_alike(&cursor, other, seen.user.at) and take_eui(&cursor, &plain.user)
            and skip(&cursor, b":", 1) and take_eui(&cursor, &plain.target)
            and skip(&cursor, b":", 1) and take_counter(&cursor, &plain.counter)
            and skip_alike(&cursor, end_of(seen.counter), seen.variant.at) and take_variant(&cursor, &plain.variant)
            and skip_alike(&cursor, end_of(seen.variant), seen.reference.at)
            and take_reference(&cursor, &plain.reference)
            and skip_alike(&cursor, end_of(seen.reference), seen.srv.at)
            and take_srv(&cursor, plain.reference, &plain.srv)
            and skip_alike(&cursor, end_of(seen.srv), seen.end))
