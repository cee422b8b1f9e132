"""What the launcher hands to its tiers of TLS and tokens, and how it calls them itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory3.security import SecurityError
from services.common.config import load
from services.decoder.config import DecoderSettings
from services.launch.config import LaunchSettings, tier_security, tier_specs

SERVING = ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "ACCESS_FILE")
CALLING = ("TLS_CA", "TLS_CLIENT_CERT", "TLS_CLIENT_KEY", "TLS_SERVER_NAME", "TOKEN_FILE", "TOKEN_PLAIN")


def test_one_variable_is_handed_to_every_tier_it_concerns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SERVING, *CALLING):
        monkeypatch.setenv(f"MEMORY3_{name}", name)
    monkeypatch.setenv("MEMORY3_MEMORY_TLS_CERT", "its own")
    for spec in tier_specs(LaunchSettings(), (1, 2, 3)):
        prefix = f"MEMORY3_{spec.name.upper()}_"
        handed = {name: spec.env.get(prefix + name) for name in (*SERVING, *CALLING)}
        wanted = dict.fromkeys(CALLING) if spec.name != "decoder" else {name: name for name in CALLING}
        wanted |= {name: name for name in SERVING}
        if spec.name == "memory":
            wanted["TLS_CERT"] = "its own"
        assert handed == wanted


def test_without_them_nothing_is_handed_down() -> None:
    names = {name for spec in tier_specs(LaunchSettings(), (1, 2, 3)) for name in spec.env}
    assert not [name for name in names if name.startswith("MEMORY3_") and ("TLS" in name or "TOKEN" in name)]


def test_tiers_of_tls_that_the_launcher_could_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY3_TLS_CERT", "tls.crt")
    with pytest.raises(SecurityError, match="MEMORY3_TLS_CA"):
        tier_security()
    monkeypatch.setenv("MEMORY3_TLS_CA", "ca.crt")
    monkeypatch.setenv("MEMORY3_TOKEN", "m3_hidden")
    assert (tier_security().ca, tier_security().token) == ("ca.crt", "")


def test_a_ray_worker_gets_names_of_files_and_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "decoder.token"
    token.write_text("m3_hidden")
    monkeypatch.setenv("MEMORY3_DECODER_TOKEN_FILE", str(token))
    settings = load(DecoderSettings)
    values = settings.model_dump(mode="json")
    assert "hidden" not in repr(values)
    assert DecoderSettings(**values).security == settings.security
