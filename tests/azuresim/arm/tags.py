"""Limits of tags. Source: learn.microsoft.com/azure/azure-resource-manager/management/tag-resources, "Limitations".

The codes of the refusals are [inf].
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.azuresim.arm.errors import ArmError

MOST, LONGEST_NAME, LONGEST_VALUE, FORBIDDEN = 50, 512, 256, "<>%&\\?/"


def check_tags(tags: Mapping[str, str] | None, longest_name: int = LONGEST_NAME) -> None:
    """Refuse more than 50 tags, names over 512 characters (128 for storage accounts) or with <>%&\\?/, values over
    256."""
    if not tags:
        return
    if len(tags) > MOST:
        raise ArmError(400, "TooManyTags", f"Too many tags on the resource: {len(tags)}. The maximum is {MOST}.")
    for name, value in tags.items():
        if not name or len(name) > longest_name or any(one in FORBIDDEN for one in name):
            raise ArmError(
                400, "InvalidTagNameCharacters" if any(one in FORBIDDEN for one in name) else "InvalidTagName",
                f"The tag name '{name}' is invalid: at most {longest_name} characters, none of {FORBIDDEN}.",
            )  # fmt: skip
        if len(value or "") > LONGEST_VALUE:
            raise ArmError(400, "InvalidTagValue", f"The value of tag '{name}' exceeds {LONGEST_VALUE} characters.")
    if len({name.lower() for name in tags}) != len(tags):
        raise ArmError(400, "DuplicateTags", "Tag names are case-insensitive; two of them are the same.")
