"""Short texts and what each means, in tables where to find one is to read one cache line."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy
from .atomic cimport publish, read, read_published, swap_if, write
from .header cimport EUI, Piece

cdef enum:
    LONGEST = 24                        # bytes of a text that is kept
    TRIES = 8                           # places looked at, one behind the other
    BEING_WRITTEN = -1


cdef struct Text:                       # at most LONGEST bytes, zeros behind them
    int64_t words[3]


cdef struct Name:                       # half a cache line
    Text text                           # written once, before its first meaning
    int64_t meaning                     # 0: this place is free


cdef inline bint pack(Piece piece, Text* text) noexcept nogil:
    """False: not one that is kept. None ends in a zero byte, so that each has a form of its own."""
    cdef Py_ssize_t at
    text.words[0] = text.words[1] = text.words[2] = 0
    if not 0 < piece.size <= LONGEST or piece.at[piece.size - 1] == 0:
        return False
    if piece.size == EUI:
        memcpy(text.words, piece.at, EUI)  # of a size known beforehand: no call
    elif piece.size <= 8:
        for at in range(piece.size):
            text.words[0] |= <int64_t>(<uint64_t><uint8_t>piece.at[at] << 8 * at)
    else:
        memcpy(text.words, piece.at, piece.size)
    return True


cdef inline uint64_t place_of(Text* text, int bits) noexcept nogil:
    # Odd constants; the highest bits of a product hang on all bits of its factors.
    return ((<uint64_t>text.words[0] * <uint64_t>0x9E3779B97F4A7C15)
            ^ (<uint64_t>text.words[1] * <uint64_t>0xC2B2AE3D27D4EB4F)
            ^ (<uint64_t>text.words[2] * <uint64_t>0x165667B19E3779F9)) >> (64 - bits)


cdef inline bint stands_there(Name* name, Text* text) noexcept nogil:
    return (read(&name.text.words[0]) == text.words[0] and read(&name.text.words[1]) == text.words[1]
            and read(&name.text.words[2]) == text.words[2])


cdef inline int64_t meaning_of(Name* names, int bits, Text* text) noexcept nogil:
    """What a text means in a table of 2**bits places; 0: it is not there, or not yet."""
    cdef uint64_t place = place_of(text, bits)
    cdef int64_t meaning
    cdef Name* name
    cdef int _try
    for _try in range(TRIES):
        name = &names[place]
        meaning = read_published(&name.meaning)
        if meaning == 0:
            return 0
        if meaning != BEING_WRITTEN and stands_there(name, text):
            return meaning
        place = (place + 1) & ((<uint64_t>1 << bits) - 1)
    return 0


cdef inline void keep(Name* names, int bits, Text* text, int64_t meaning) noexcept nogil:
    """Let a text mean this from now on; where all its places are taken it is not kept."""
    cdef uint64_t place = place_of(text, bits)
    cdef int64_t found
    cdef Name* name
    cdef int _try
    for _try in range(TRIES):
        name = &names[place]
        found = 0
        if swap_if(&name.meaning, &found, BEING_WRITTEN):
            write(&name.text.words[0], text.words[0])
            write(&name.text.words[1], text.words[1])
            write(&name.text.words[2], text.words[2])
            publish(&name.meaning, meaning)
            return
        # Two threads may put a text down twice: who looks for it finds the first, which is the one that is changed.
        if found != BEING_WRITTEN and stands_there(name, text):
            publish(&name.meaning, meaning)
            return
        place = (place + 1) & ((<uint64_t>1 << bits) - 1)
