# The reception of gateways, part of engine.pyx: the usual request of a known User, admitted in one call.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact
from cpython.list cimport PyList_CheckExact
from cpython.tuple cimport PyTuple_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeLatin1
from .header cimport EUI, Piece, Plain, same, start_of, take_header, upper


cdef inline Piece piece_of(object text) noexcept:
    """The bytes of a bytes object, as long as it is there."""
    cdef Piece piece
    piece.at, piece.size = PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)
    return piece


cdef bint find_plain(object part, dict starts, Plain* plain) except -1:
    """Find what a message says whose first bytes are in `starts`, with the prefix of its elements."""
    cdef Piece message
    cdef Py_ssize_t start
    if not PyBytes_CheckExact(part):
        return False
    message = piece_of(part)
    start = start_of(message)
    prefix = starts.get(PyBytes_FromStringAndSize(message.at, start)) if start else None
    return prefix is not None and take_header(message, start, piece_of(<bytes?>prefix), plain)


cdef str text_of(Piece piece):
    return PyUnicode_DecodeLatin1(piece.at, piece.size, NULL)


cdef str eui_of(Piece piece):
    cdef char digits[EUI]
    cdef int index
    for index in range(EUI):
        digits[index] = upper(piece.at[index])
    return PyUnicode_DecodeLatin1(digits, EUI, NULL)


def plain_header(part, dict starts not None):
    """Return what the plain header of a message says; None: not plain, ask a reader of XML.

    Parameters
    ----------
    part : bytes
        The message or its first part.
    starts : dict of bytes to bytes
        First bytes of messages up to the end of the start tag of RequestID: prefix of the elements.

    Returns
    -------
    tuple of str
        Originator, target, counter, Command Variant, Service Reference, SRV.
    """
    cdef Plain plain
    if not find_plain(part, starts, &plain):
        return None
    return (eui_of(plain.user), eui_of(plain.target), text_of(plain.counter), text_of(plain.variant),
            text_of(plain.reference), text_of(plain.srv))


@cython.auto_pickle(False)
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
    starts : dict of bytes to bytes
        As for `plain_header`.
    fields : tuple of bytes, or of str
        HTTP headers with User and SRV, as an ASGI scope or as a WSGI environ names them; none: the message says.
    """

    def __cinit__(self, dict gates not None, dict numbers not None, frozenset methods not None,
                  dict starts not None, tuple fields not None):
        self.gates = gates
        self.numbers = numbers
        self.methods = methods
        self.starts = starts
        if fields:
            self.user_field, self.srv_field = fields

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
        if not PyDict_CheckExact(scope) or (<dict>scope).get("type") != "http":
            return None
        if (<dict>scope).get("method") not in self.methods:
            return None
        if self.user_field is None:
            return False
        return self.by_fields((<dict>scope).get("headers"))

    def ask_environ(self, environ):
        """Decide by the environ of a WSGI request; as `ask`, but None where the message says."""
        if not PyDict_CheckExact(environ) or (<dict>environ).get("REQUEST_METHOD") not in self.methods:
            return None
        user, srv = (<dict>environ).get(self.user_field), (<dict>environ).get(self.srv_field)
        if not PyUnicode_CheckExact(user) or not PyUnicode_CheckExact(srv):
            return None
        return self.decided(<str>user, <str>srv)

    def ask_message(self, message):
        """Decide by the first ASGI message of a request's body; as `ask`, never False."""
        cdef Plain plain
        if not PyDict_CheckExact(message) or (<dict>message).get("type") != "http.request":
            return None
        if not find_plain((<dict>message).get("body"), self.starts, &plain):
            return None
        return self.decided(eui_of(plain.user), text_of(plain.srv))

    cdef object by_fields(self, headers):
        """Look for one User and one SRV, each there once."""
        cdef Piece user, srv
        user.at = srv.at = NULL
        if not PyList_CheckExact(headers):
            return None
        for pair in <list>headers:
            if not PyTuple_CheckExact(pair) or len(<tuple>pair) != 2:
                return None
            name, text = <tuple>pair
            if not PyBytes_CheckExact(name) or not PyBytes_CheckExact(text):
                return None
            if same(piece_of(name), piece_of(self.user_field)):
                if user.at != NULL:
                    return None
                user = piece_of(text)
            elif same(piece_of(name), piece_of(self.srv_field)):
                if srv.at != NULL:
                    return None
                srv = piece_of(text)
        # The list holds what the pieces point into.
        if user.at == NULL or srv.at == NULL:
            return None
        return self.decided(text_of(user), text_of(srv))

    cdef object decided(self, str user, str srv):
        cdef Gate gate
        cdef uint32_t number
        found, known = self.gates.get(user), self.numbers.get(srv)
        if type(found) is not Gate or known is None:
            return None
        try:
            gate, number = found, known
            if gate.decided(number) != THROTTLED:
                return True
            return gate.retry_after(), gate.user_id
        except Exception:
            return None  # whoever is asked next comes to the same, and says so


@cython.auto_pickle(False)
cdef class Entrance:
    """An ASGI application that lets the usual request in at once, and leaves all else to its `_unusual`.

    It returns what the application behind it returns: the usual request meets no coroutine of ours.

    Attributes
    ----------
    _app : ASGI application
    _usual : Reception
    """

    def __call__(self, scope, receive, send):
        cdef Reception usual = self._usual
        verdict = None if usual is None else usual.asked(scope)
        if verdict is True:
            return self._app(scope, receive, send)
        return self._unusual(verdict, scope, receive, send)
