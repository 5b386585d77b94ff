"""The catalogue of Service Requests."""

from __future__ import annotations

import pytest

from tmm_core import ConfigError
from tmm_core.policy.catalogue import by_srv_code, catalogue
from tmm_core.policy.service_requests import expand, fault_of, is_srv, srv_codes, variants_of

ROLES = {"IS", "ES", "GS", "RSA", "ED", "GT", "OU", "MDR"}


def test_the_catalogue_has_the_129_srvs_of_95_service_references() -> None:
    assert len(catalogue()) == len(set(srv_codes())) == len(by_srv_code()) == 129
    assert len({request.service_reference for request in catalogue()}) == 95


def test_the_codes_are_those_of_the_catalogue() -> None:
    """They are read without a reader of CSV, for the start of a worker."""
    assert srv_codes() == tuple(request.srv_code for request in catalogue()) == tuple(by_srv_code())
    references = {request.service_reference for request in catalogue()}
    assert all(is_srv(code) for code in srv_codes())
    assert [code for code in references if is_srv(code)] == [
        code for code in references if code in by_srv_code()
    ]
    for request in catalogue():
        assert request.srv_code in variants_of(request.service_reference)


def test_every_entry_is_sound() -> None:
    for request in catalogue():
        code = request.srv_code
        assert code == request.service_reference or code.startswith(request.service_reference + "."), code
        assert request.name == request.name.strip() != "", code
        assert set(request.user_roles) <= ROLES | {"(none", "listed)"}, code
        # A critical request is transformed (4) and then signed (5, 6, 7); a non-device one has variant 8.
        assert (set(request.command_variants) <= {4, 5, 6, 7}) == request.critical, code
        assert (request.command_variants == (8,)) == request.non_device, code


def test_target_response_times_are_there_for_four_srvs_only() -> None:
    """What is not published stays empty: it is not filled in, and not zero."""
    assert {request.srv_code for request in catalogue() if request.target_response} == {
        "4.1.1", "4.4.3", "4.6.1", "4.8.1",
    }  # fmt: skip


def test_a_service_reference_stands_for_its_variants() -> None:
    assert variants_of("4.8") == ("4.8.1", "4.8.2", "4.8.3")
    assert variants_of("4.8.2") == ("4.8.2",)
    assert variants_of("7.4") == ("7.4",)
    assert variants_of("4.9") == variants_of("") == variants_of("4") == ()


def test_every_reference_stands_for_something_and_every_srv_for_itself() -> None:
    for request in catalogue():
        assert request.srv_code in variants_of(request.service_reference)
        assert request.srv_code in variants_of(request.srv_code)
        assert fault_of(request.srv_code) is None


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("4.6.3", "'4.6.3' is not an SRV or a Service Reference of the catalogue (did you mean '4.6.1', '4.6.2'?)"),
        ("nonsense", "'nonsense' is not an SRV or a Service Reference of the catalogue"),
        (4.1, "4.1 must be text, for example '4.1.1'"),
        ("9" * 50, f"'{'9' * 40}...' is not an SRV or a Service Reference of the catalogue"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_catalogue_is_told(code: object, told: str) -> None:
    assert fault_of(code) == told


def test_all_codes_that_do_not_exist_are_told_at_once() -> None:
    assert expand(["2.2", "4.8"]) == {"2.2", "4.8.1", "4.8.2", "4.8.3"}
    with pytest.raises(ConfigError) as caught:
        expand(["2.2", "99.99", "x"])
    assert [mistake.field for mistake in caught.value.mistakes] == ["srvs", "srvs"]


def test_the_catalogue_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        by_srv_code()["4.1.1"] = catalogue()[0]  # type: ignore[index]
    with pytest.raises(AttributeError):
        catalogue()[0].name = "x"  # type: ignore[misc]
