"""Doctests are collected from the package: leave out the integrations whose extra is not installed."""

from importlib.util import find_spec

#: Module of the package: what it needs. Its own tests skip and say so.
NEEDS = {"src/tmm_core/gateway/envoy.py": "grpc"}

collect_ignore = [file for file, needed in NEEDS.items() if find_spec(needed) is None]
