"""The simulator: scenarios, clients, the model of the DSP, policies side by side.

A Service Request of a simulation is one 64-bit word, so that a waiting one costs 8 bytes:

bits  28 to 55    16 to 27    8 to 15    0 to 7
      step born   User slot   SRV        attempts so far
"""

import numpy as np

from tmm_core.operations.traffic import Ints, Srvs, Users

Words = Ints
NOTHING: Words = np.empty(0, dtype=np.int64)

ATTEMPTS, SRV, USER, BORN = 0, 8, 16, 28
TIME_BITS = 24
"""Of the time of a new one within its second: 60 ns."""


def users_of(words: Words) -> Users:
    """Return the User slots of words."""
    # The lowest 32 bits hold it: half as wide, several times faster.
    users = words.astype(np.uint32)
    users >>= USER
    users &= 0xFFF
    return users


def srvs_of(words: Words) -> Srvs:
    """Return the SRV numbers of words."""
    srvs = words.astype(np.uint16)
    srvs >>= SRV
    return srvs


def born_of(words: Words) -> Words:
    """Return the steps in which the first attempts of words were made."""
    return words >> BORN
