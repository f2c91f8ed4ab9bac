"""Bodies pass through the SDKs' own models, and what a model does not know or misses is refused as ARM refuses it.

Source of `InvalidRequestContent` and its sentence: Azure docs, azure-resource-manager/troubleshooting; of "Required
parameter 'x' is missing (null)": Azure's answers as quoted in issues of its SDKs. [inf]: that every provider words it
so (some say BadRequest), and `InvalidParameter` for a word that an enumeration lacks.

Three kinds of models exist in the installed SDKs: those on `_utils/model_base.py` (compute, network, storage,
resource, recovery services, site recovery), msrest's with `_attribute_map` (authorization), and none at all (calls
without an SDK: a plain dict is passed on).
"""

from __future__ import annotations

import base64
import binascii
import datetime
import enum
import functools
import inspect
import json
import sys
import types
import typing
from typing import Any, Union

from tests.azuresim.arm.errors import ArmError, SimulatorBug

OPEN = {"VirtualMachineSizeTypes"}
"""Enumerations that are examples only: the service's own list is longer (source: the description of
HardwareProfile.vmSize in ComputeRP's specification)."""


def read(model: type | None, body: Any) -> Any:
    """The request's body as plain JSON values, checked against `model`. Null stands for "not given", as ARM takes it.

    Raises ArmError 400 `InvalidRequestContent` for an unknown field, `InvalidParameter` for a missing or misread one:
    the wording is that of ARM's JSON reader ("Could not find member 'x' on object of type 'Y'. Path 'a.b'.").
    """
    if model is None:
        return body
    if not isinstance(body, dict):
        raise _content(f"Error converting the request content to type '{model.__name__}'. Path ''.")
    _check(model, body, "", request=True)
    return _round_trip(model, body, exclude_readonly=True)


def write(model: type | None, body: Any) -> Any:
    """The response's body after a passage through `model`; raises SimulatorBug when that does not know a field."""
    if model is None or body is None:
        return body
    try:
        _check(model, body, "", request=False)
    except ArmError as error:
        raise SimulatorBug(f"{model.__name__}: {error.message}") from error
    return _round_trip(model, body)


def _round_trip(model: type, body: dict[str, Any], exclude_readonly: bool = False) -> Any:
    """Read-only fields of a request are ignored, as Azure does with what a client got and sends back."""
    if hasattr(model, "_attribute_map"):
        return model.deserialize(body).serialize(keep_readonly=True)  # type: ignore[attr-defined]
    base = sys.modules[next(one for one in model.__mro__ if one.__name__ == "Model").__module__]
    made = base._deserialize(model, body)
    return json.loads(json.dumps(made, cls=base.SdkJSONEncoder, exclude_readonly=exclude_readonly))


def _content(message: str) -> ArmError:
    return ArmError(
        400, "InvalidRequestContent", f"The request content was invalid and could not be deserialized: '{message}'."
    )


@functools.cache
def _fields(model: type) -> dict[str, tuple[Any, bool, bool]]:
    """By the name in JSON: annotation, whether it must be given in a request, whether it is a client's constant."""
    from_package: dict[str, Any] = {**vars(typing), "datetime": datetime}
    found: dict[str, tuple[Any, bool, bool]] = {}
    model.__new__(model)  # the SDK works out names when the first instance is made
    hints: dict[str, Any] = {}
    for one in reversed(model.__mro__):
        module = sys.modules[one.__module__]
        package = sys.modules.get(one.__module__.rpartition(".")[0])
        scope = {**from_package, **vars(module), "_models": package}
        own = inspect.get_annotations(one)
        for name, hint in own.items():
            hints[name] = _resolved(hint, scope)
    for name, field in model._attr_to_rest_field.items():  # type: ignore[attr-defined]
        hint = hints.get(name, Any)
        readonly = field._visibility == ["read"]
        found[field._rest_name] = (hint, not _optional(hint) and not readonly, readonly)
    return found


def _resolved(hint: Any, scope: dict[str, Any]) -> Any:
    holder = types.new_class("Holder")
    holder.__annotations__ = {"it": hint}
    return typing.get_type_hints(holder, scope, scope)["it"]


def _optional(hint: Any) -> bool:
    return hint is Any or (typing.get_origin(hint) in (Union, types.UnionType) and type(None) in typing.get_args(hint))


def _check(hint: Any, value: Any, path: str, *, request: bool) -> None:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is None:
        return
    if origin in (Union, types.UnionType):
        return _check_union(inner, value, path, request=request)
    if isinstance(hint, type) and hasattr(hint, "_attribute_map"):
        return _check_msrest(hint, value, path)
    if isinstance(hint, type) and getattr(hint, "_is_model", False):
        return _check_model(hint, value, path, request=request)
    if origin is list:
        if not isinstance(value, list):
            raise _content(f"Expected an array at path '{path}'.")
        for number, one in enumerate(value):
            _check(inner[0], one, f"{path}[{number}]", request=request)
    elif origin is dict:
        if not isinstance(value, dict):
            raise _content(f"Expected an object at path '{path}'.")
        for key, one in value.items():
            _check(inner[1], one, f"{path}.{key}", request=request)
    elif origin is typing.Literal:
        _check_word([getattr(one, "value", one) for one in inner], value, path)
    else:
        _check_scalar(hint, value, path)


def _check_union(choices: tuple[Any, ...], value: Any, path: str, *, request: bool) -> None:
    rest = [one for one in choices if one is not type(None)]
    if value is None:
        if type(None) not in choices:
            raise ArmError(400, "InvalidParameter", f"Required parameter '{path}' is missing (null).", target=path)
        return
    words = [one for one in rest if isinstance(one, type) and issubclass(one, enum.Enum)]
    if words:
        if request and words[0].__name__ not in OPEN:
            _check_word([one.value for one in words[0]], value, path)
        else:
            _check_scalar(str, value, path)
        return
    for one in rest[:-1]:
        try:
            return _check(one, value, path, request=request)
        except ArmError:
            continue
    _check(rest[-1], value, path, request=request)


def _check_model(model: type, value: Any, path: str, *, request: bool) -> None:
    if getattr(value, "_is_model", False):
        value = dict(value)
    if not isinstance(value, dict):
        raise _content(f"Expected an object of type '{model.__name__}' at path '{path}'.")
    actual = _mapped(model, value)
    fields = _fields(actual)
    prefix = f"{path}." if path else ""
    for key, one in value.items():
        if key not in fields:
            raise _content(
                f"Could not find member '{key}' on object of type '{actual.__name__}'. Path '{prefix}{key}'."
            )
        hint, _, _ = fields[key]
        if one is None and request:
            continue
        _check(hint, one, f"{prefix}{key}", request=request)
    for key, (_, required, _) in fields.items():
        if required and request and value.get(key) is None:
            raise ArmError(
                400,
                "InvalidParameter",
                f"Required parameter '{prefix}{key}' is missing (null).",
                target=f"{prefix}{key}",
            )


def _mapped(model: Any, value: dict[str, Any]) -> Any:
    """The subclass that the discriminator of `value` names."""
    seen: list[str] = []
    while "__mapping__" in vars(model) or hasattr(model, "__mapping__"):
        field = model._get_discriminator(seen)
        if field is None:
            break
        model.__new__(model)
        seen.append(field._rest_name)
        following = model.__mapping__.get(value.get(field._rest_name), model)
        if following is model:
            break
        model = following
    return model


def _check_msrest(model: Any, value: Any, path: str) -> None:
    known = {
        str(one["key"]).replace("\\.", "\0").split(".")[0].replace("\0", ".") for one in model._attribute_map.values()
    }
    for key in value:
        if key not in known:
            raise _content(f"Could not find member '{key}' on object of type '{model.__name__}'. Path '{path}{key}'.")


def _check_word(words: list[Any], value: Any, path: str) -> None:
    """Azure compares enumerations without regard to case and refuses words that it does not know."""
    if str(value).lower() not in {str(one).lower() for one in words}:
        raise ArmError(
            400, "InvalidParameter", f"The value '{value}' of parameter '{path}' is not allowed. Allowed values are "
            f"'{','.join(str(one) for one in words)}'.", target=path,
        )  # fmt: skip


def _check_scalar(hint: Any, value: Any, path: str) -> None:
    if not _fits(hint, value):
        shown = getattr(hint, "__name__", str(hint))
        raise _content(f"Error converting value {json.dumps(value, default=str)} to type '{shown}'. Path '{path}'.")


def _fits(hint: Any, value: Any) -> bool:
    if hint is str:
        return isinstance(value, str)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdigit())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is datetime.datetime:
        return isinstance(value, str) and _is_time(value)
    if hint in (bytes, bytearray):
        return isinstance(value, str) and _is_base64(value)
    return True


def _is_time(value: str) -> bool:
    try:
        datetime.datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return True
