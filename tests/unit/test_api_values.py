"""The strings of the resources: what they mean in Python, and that they come back as they were."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farshore_operator.api.naming import camel
from farshore_operator.api.values import format_duration, format_quantity, parse_duration, parse_quantity

DURATIONS = {
    "90s": timedelta(seconds=90),
    "15m": timedelta(minutes=15),
    "1d12h": timedelta(hours=36),
    "1h30m": timedelta(minutes=90),
    "500ms": timedelta(milliseconds=500),
    "0s": timedelta(0),
    "7d": timedelta(days=7),
}


@pytest.mark.parametrize(("text", "meaning"), DURATIONS.items(), ids=str)
def test_duration_is_read(text: str, meaning: timedelta) -> None:
    assert parse_duration(text) == meaning


@pytest.mark.parametrize("text", ["", "15", "5 min", "m", "1h1d", "-5m", "1.5h", "1w"], ids=repr)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write numbers with units, such as 30s, 15m, 24h or 7d"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_duration_comes_back(milliseconds: int) -> None:
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


QUANTITIES = {
    "200Mi": 200 * 1024**2,
    "1.5G": 1_500_000_000,
    "0": 0,
    "1048576": 1024**2,
    "10k": 10_000,
    "20Gi": 20 * 1024**3,
}


@pytest.mark.parametrize(("text", "meaning"), QUANTITIES.items(), ids=str)
def test_quantity_is_read(text: str, meaning: int) -> None:
    assert parse_quantity(text) == meaning


@pytest.mark.parametrize("text", ["", "50 GB", "50GB", "-1Mi", "1.Gi", "Mi", "1e6"], ids=repr)
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(
        ValueError, match="is not an amount of bytes: write a number with a unit, such as 200Mi or 10Gi"
    ):
        parse_quantity(text)


@given(st.integers(min_value=0, max_value=2**60))
def test_quantity_comes_back(value: int) -> None:
    assert parse_quantity(format_quantity(value)) == value


NAMES = {
    "protected_vm_ref": "protectedVMRef",
    "private_ip": "privateIP",
    "account_url": "accountURL",
    "process_server": "processServer",
    "url": "url",
    "last_app_consistent_point": "lastAppConsistentPoint",
}


@pytest.mark.parametrize(("field", "name"), NAMES.items(), ids=NAMES.keys())
def test_acronyms_are_capitals_in_yaml(field: str, name: str) -> None:
    assert camel(field) == name
