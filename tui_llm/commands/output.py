"""Printing, for people and for programs."""

from __future__ import annotations

import json
from typing import Any


def put(value: object) -> None:
    print(value)


def put_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=True, allow_nan=False))
