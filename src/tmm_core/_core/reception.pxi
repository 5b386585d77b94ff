# The reception of gateways, part of engine.pyx: the usual request of a known User, admitted in one call.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact
from cpython.unicode cimport PyUnicode_DecodeLatin1, PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.string cimport memcmp
from .header cimport EUI, Piece, Plain, start_of, take_alike, take_header, upper
from .names cimport Name, Text, keep, meaning_of, pack


# Borrowed references, without counting, to what a request holds: its caller waits for us. Never to what threads share.
cdef extern from "Python.h":
    PyObject* dict_item "PyDict_GetItemWithError"(PyObject* mapping, PyObject* key) noexcept
    void forget_error "PyErr_Clear"() noexcept
    bint is_list "PyList_CheckExact"(PyObject* list) noexcept
    bint is_tuple "PyTuple_CheckExact"(PyObject* tuple) noexcept
    bint is_bytes "PyBytes_CheckExact"(PyObject* text) noexcept
    Py_ssize_t list_size "PyList_GET_SIZE"(PyObject* list) noexcept
    Py_ssize_t tuple_size "PyTuple_GET_SIZE"(PyObject* tuple) noexcept
    PyObject* list_item "PyList_GET_ITEM"(PyObject* list, Py_ssize_t at) noexcept
    PyObject* tuple_item "PyTuple_GET_ITEM"(PyObject* tuple, Py_ssize_t at) noexcept
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject* text) noexcept
    const char* bytes_start "PyBytes_AS_STRING"(PyObject* text) noexcept
    bint is_str "PyUnicode_CheckExact"(PyObject* text) noexcept
    int kind_of "PyUnicode_KIND"(PyObject* text) noexcept
    Py_ssize_t length_of "PyUnicode_GET_LENGTH"(PyObject* text) noexcept
    const char* latin_start "PyUnicode_1BYTE_DATA"(PyObject* text) noexcept

cdef enum:
    USER_BITS = 12                      # 4,096 spellings of Users that are kept, half a cache line each
    SRV_BITS = 9
    KINDS_MOST = 64
    RECENT = 4                          # kinds that are looked at first

cdef inline Piece piece_of(object text) noexcept:
    """The bytes of a bytes object, as long as it is there."""
    cdef Piece piece
    piece.at, piece.size = PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)
    return piece


cdef str text_of(Piece piece):
    """Return UTF-8 as text; what is not UTF-8 is Latin-1. So does ``header_text`` of the gateways."""
    try:
        return PyUnicode_DecodeUTF8(piece.at, piece.size, NULL)
    except UnicodeDecodeError:
        return PyUnicode_DecodeLatin1(piece.at, piece.size, NULL)


cdef inline void put_upper(char* digits, Piece eui) noexcept:
    cdef int index
    for index in range(EUI):
        digits[index] = upper(eui.at[index])


cdef str eui_of(Piece piece):
    cdef char digits[EUI]
    put_upper(digits, piece)
    return PyUnicode_DecodeLatin1(digits, EUI, NULL)


@cython.final
cdef class Kind:
    """Messages with the same first bytes, up to the end of the start tag of RequestID, as a reader of XML found it."""
    cdef bytes message                  # one of them
    cdef bytes prefix                   # of the names of their elements
    cdef Plain plain                    # its header
    cdef int place                      # among those looked at first


cdef class Kinds:
    """The kinds of messages whose plain headers can be read here. *Thread-safe.*"""

    def __cinit__(self):
        seldom()
        self.by_start = {}
        self.recent = [None] * RECENT

    def __len__(self):
        return len(self.by_start)

    def clear(self):
        """Forget all kinds."""
        seldom()
        self.by_start.clear()
        for place in range(RECENT):
            self.recent[place] = None

    def learn(self, bytes message not None, Py_ssize_t start, bytes prefix not None, /):
        """Take a message in, if its header is plain.

        Parameters
        ----------
        message : bytes
        start : int
            Bytes up to the end of the start tag of RequestID, which a reader of XML has found there.
        prefix : bytes
            Prefix of the names of its elements.
        """
        cdef Kind kind = Kind.__new__(Kind)
        seldom()
        kind.message, kind.prefix = message, prefix
        if not 0 < start <= len(message) or not take_header(piece_of(message), start, piece_of(prefix), &kind.plain):
            return
        if len(self.by_start) >= KINDS_MOST:
            self.clear()                # an attacker who sends many can make this slow again, never wrong
        kind.place = len(self.by_start) % RECENT
        self.by_start[message[:start]] = kind

    def header(self, part):
        """Return what the plain header of a message says; None: not plain, ask a reader of XML.

        Parameters
        ----------
        part : bytes
            The message or its first part.

        Returns
        -------
        tuple of str
            Originator, target, counter, Command Variant, Service Reference, SRV.
        """
        cdef Plain plain
        if not self.found(part, &plain):
            return None
        return (eui_of(plain.user), eui_of(plain.target), text_of(plain.counter), text_of(plain.variant),
                text_of(plain.reference), text_of(plain.srv))

    def names(self, part):
        """Return originator and SRV of a message; as `header`."""
        cdef Plain plain
        return (eui_of(plain.user), text_of(plain.srv)) if self.found(part, &plain) else None

    cdef bint found(self, part, Plain* plain) except -1:
        cdef Piece message
        cdef Kind kind
        cdef Py_ssize_t start
        cdef int place
        if not PyBytes_CheckExact(part):
            return False
        message = piece_of(part)
        for place in range(RECENT):
            recent = self.recent[place]
            if recent is None:
                break
            kind = <Kind>recent
            if take_alike(message, PyBytes_AS_STRING(kind.message), &kind.plain, plain):
                return True
        start = start_of(message)
        found = self.by_start.get(PyBytes_FromStringAndSize(message.at, start)) if start else None
        if found is None:
            return False
        kind = <Kind>found
        self.recent[kind.place] = kind
        return take_header(message, start, piece_of(kind.prefix), plain)


cdef inline PyObject* item(dict mapping, str key) noexcept:
    """What a dictionary has under a key; NULL: nothing, or a key of the server's making that cannot be compared."""
    cdef PyObject* found = dict_item(<PyObject*>mapping, <PyObject*>key)
    if found == NULL:
        forget_error()
    return found


cdef inline bint is_named(PyObject* text, object name) noexcept:
    """Whether two bytes objects are alike."""
    return (bytes_size(text) == PyBytes_GET_SIZE(name)
            and memcmp(bytes_start(text), PyBytes_AS_STRING(name), bytes_size(text)) == 0)


cdef inline bint is_latin(PyObject* text) noexcept:
    """Whether this is a str of one byte a character, those of Latin-1."""
    return text != NULL and is_str(text) and kind_of(text) == 1


cdef inline Piece latin_piece(PyObject* text) noexcept:
    cdef Piece piece
    piece.at, piece.size = latin_start(text), length_of(text)
    return piece


cdef inline bint is_spelt(PyObject* text, Piece name) noexcept:
    return length_of(text) == name.size and memcmp(latin_start(text), name.at, name.size) == 0


cdef inline int64_t whom_of(int64_t generation, uint32_t user) noexcept:
    """A User's slot, and since which generation it is that one's; never 0."""
    return <int64_t>((<uint64_t>generation + 1) << 32 | user)


cdef inline int decided_at_once(Engine engine, int64_t whom, uint32_t number) noexcept:
    """Decide as `Gate.admit` does; -1, with nothing written, where that would have to look further."""
    cdef int64_t now = clock_early()
    cdef uint32_t user = <uint32_t>whom
    if (whom_of(read(&engine.door.control.generation), user) != whom or user >= engine.guard.users
            or number >= engine.srvs):
        return -1
    return decided(engine, user, number, now, True)


cdef class Reception:
    """Decide on the usual request at once; say None to all else, with nothing written. *Thread-safe.*

    Parameters
    ----------
    gates : dict of str to Gate
        By the names of Users; somebody else fills it.
    numbers : dict of str to int
        By SRV.
    methods : frozenset of str
        Only these are Service Requests.
    kinds : Kinds
    fields : tuple of bytes, or of str
        HTTP headers with User and SRV, as an ASGI scope or as a WSGI environ names them; none: the message says.
    """

    def __cinit__(self, dict gates not None, dict numbers not None, frozenset methods not None,
                  Kinds kinds not None, tuple fields not None, /):
        seldom()
        self.gates = gates
        self.numbers = numbers
        self.methods = methods
        self.kinds = kinds
        self.method.size = -1
        for method in methods:
            if is_latin(<PyObject*>method):
                self.method = latin_piece(<PyObject*>method)  # compared first: a new string has no hash yet
                break
        if fields:
            self.user_field, self.srv_field = fields
        self.memory = calloc((1 << USER_BITS) + (1 << SRV_BITS) + 1, sizeof(Name))
        if self.memory == NULL:
            raise MemoryError()
        # Each in one half of a line, and none across two.
        self.users = <void*>((<size_t>self.memory + sizeof(Name) - 1) // sizeof(Name) * sizeof(Name))
        self.srvs = <Name*>self.users + (1 << USER_BITS)

    def __dealloc__(self):
        free(self.memory)

    def ask(self, scope):
        """Decide by the head of an ASGI request.

        Returns
        -------
        True, tuple, False or None
            Admitted; throttled: seconds until the retry slot, and the User; the message says, see `ask_message`;
            not the usual request.
        """
        return self.asked(scope)

    cdef object asked(self, scope):
        cdef PyObject* found
        if not PyDict_CheckExact(scope):
            return None
        found = item(<dict>scope, "type")
        if found == NULL or <object>found != "http":
            return None
        if not self.is_method(item(<dict>scope, "method")):
            return None
        if self.user_field is None:
            return False
        return self.by_fields(item(<dict>scope, "headers"))

    cdef bint is_method(self, PyObject* method) except -1:
        return is_latin(method) and (is_spelt(method, self.method) or <object>method in self.methods)

    def ask_environ(self, environ):
        """Decide by the environ of a WSGI request; as `ask`, and for what the message says see `ask_body`."""
        cdef PyObject* user
        cdef PyObject* srv
        if not PyDict_CheckExact(environ) or not self.is_method(item(<dict>environ, "REQUEST_METHOD")):
            return None
        if self.user_field is None:
            return False
        user, srv = item(<dict>environ, self.user_field), item(<dict>environ, self.srv_field)
        return self.by_names(latin_piece(user), latin_piece(srv)) if is_latin(user) and is_latin(srv) else None

    def ask_message(self, message):
        """Decide by the first ASGI message of a request's body; as `ask`, never False."""
        return self.ask_body((<dict>message).get("body")) if PyDict_CheckExact(message) else None

    cpdef object ask_body(self, part):
        """Decide by the first part of a request's body; as `ask`, never False."""
        cdef Plain plain
        cdef char digits[EUI]
        if not self.kinds.found(part, &plain):
            return None
        put_upper(digits, plain.user)
        plain.user.at = digits
        return self.by_names(plain.user, plain.srv)

    cdef object by_fields(self, PyObject* headers):
        """Look for one User and one SRV, each there once."""
        cdef PyObject* user = NULL
        cdef PyObject* srv = NULL
        cdef PyObject* pair
        cdef PyObject* name
        cdef PyObject* text
        cdef Py_ssize_t at
        if headers == NULL or not is_list(headers):
            return None
        for at in range(list_size(headers)):
            pair = list_item(headers, at)
            if not is_tuple(pair) or tuple_size(pair) != 2:
                return None
            name, text = tuple_item(pair, 0), tuple_item(pair, 1)
            if not is_bytes(name) or not is_bytes(text):
                return None
            if is_named(name, self.user_field):
                if user != NULL:
                    return None
                user = text
            elif is_named(name, self.srv_field):
                if srv != NULL:
                    return None
                srv = text
        if user == NULL or srv == NULL:
            return None
        return self.by_names(piece_of(<object>user), piece_of(<object>srv))

    cdef object by_names(self, Piece user, Piece srv):
        """Decide by the texts of User and SRV."""
        cdef Text text
        cdef int64_t whom = 0, number = 0
        cdef int outcome = -1
        if pack(srv, &text):
            number = meaning_of(<Name*>self.srvs, SRV_BITS, &text)
        if number != 0 and pack(user, &text):
            whom = meaning_of(<Name*>self.users, USER_BITS, &text)
        if whom != 0:
            outcome = decided_at_once(self.engine, whom, <uint32_t>number)
        if outcome < 0:
            whom = self.learn(user, srv, &number)
            if whom != 0:
                outcome = decided_at_once(self.engine, whom, <uint32_t>number)
        if outcome > THROTTLED:
            return True
        if outcome < 0:
            return None
        try:
            return self.engine.retry_after(<uint32_t>whom), text_of(user)
        except Exception:
            return None  # closed meanwhile: whoever is asked next comes to the same, and says so

    cdef int64_t learn(self, Piece user, Piece srv, int64_t* number) except -1:
        """Ask the dictionaries, and keep what they say; returns whom a User's text means, 0: nobody known."""
        cdef Gate gate
        cdef Text text
        cdef int64_t whom
        seldom()
        found, known = self.gates.get(text_of(user)), self.numbers.get(text_of(srv))
        if type(found) is not Gate or known is None:
            return 0
        gate, number[0] = <Gate>found, known
        if self.engine is None:
            self.engine = gate.engine
        if self.engine is not gate.engine:
            return 0
        whom = whom_of(gate.generation, gate.user)
        if pack(user, &text):
            keep(<Name*>self.users, USER_BITS, &text, whom)
        if pack(srv, &text):
            keep(<Name*>self.srvs, SRV_BITS, &text, number[0])
        return whom


cdef class Entrance:
    """An ASGI application that lets the usual request in at once, and leaves all else to its `_unusual`.

    It returns what the application behind it returns: the usual request meets no coroutine of ours.

    Attributes
    ----------
    _app : ASGI application
    _usual : Reception
    _by_message : ASGI application
        Gets what the message says more about.
    """

    def __call__(self, scope, receive, send):
        cdef Reception usual = self._usual
        verdict = None if usual is None else usual.asked(scope)
        if verdict is True:
            return self._app(scope, receive, send)
        if verdict is False:
            return self._by_message(scope, receive, send)
        return self._unusual(verdict, scope, receive, send)
