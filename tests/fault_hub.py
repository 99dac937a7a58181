"""A hub inside the process that pulls from it: `fault_scenarios.py` forks, and a server's thread would not survive that."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import safetensors.numpy
from huggingface_hub import constants, file_download

from tests.fake_hub import Repository
from tui_llm.llm.hub import pull


def upstream(version: int) -> dict[str, bytes]:
    """The files of a repository on the hub."""
    weights = safetensors.numpy.save({"w": np.full(600, version, np.float32)})
    config = {"model_type": "llama", "version": version}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": weights, "README.md": b"# %d\n" % version}


def pull_version(version: int) -> int:
    """Pulls a model whose newest revision on the hub is `version`."""
    hosted = upstream(version)

    def model_info(*_: Any, **__: Any) -> Any:
        siblings = Repository(hosted).siblings()
        return SimpleNamespace(sha=f"{version}" * 40, siblings=[
            SimpleNamespace(rfilename=one["rfilename"], size=one["size"], lfs=one.get("lfs"), blob_id=one["blobId"]) for one in siblings
        ])  # fmt: skip

    def http_get(url: str, file: Any, *, resume_size: int = 0, **_: Any) -> None:
        data = hosted[url.rpartition("/")[2]]
        for start in range(resume_size, len(data), 1000):
            file.write(data[start : start + 1000])

    constants.HF_HUB_OFFLINE = False
    huggingface_hub.HfApi = lambda *_, **__: SimpleNamespace(model_info=model_info)  # type: ignore[assignment, misc]
    file_download.http_get = http_get  # type: ignore[assignment]
    pull.pull("owner/tiny")  # as the command does, which prints its progress too
    return 0
