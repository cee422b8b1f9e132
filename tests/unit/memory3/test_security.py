"""How a caller is set up: TLS files, tokens, what contradicts itself; and that no message shows a secret."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from memory3.channel import open_channel
from memory3.client import Client
from memory3.memory import MemoryClient
from memory3.rights import Right
from memory3.security import PLAIN, SYSTEM, ChannelSecurity, SecurityError, is_loopback
from memory3.tokens import PREFIX, TokenEntry, digest, new_token, parse_entry
from memory3.watched_files import WatchedFiles
from tests.helpers.certificates import Authority
from tests.helpers.recording_servicer import Hold, recording_server
from tests.helpers.waiting import until

HASH = digest("a token")
LINE = '{"name": "ci", "sha256": "%s", "rights": %s}'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class TestFiles:
    def test_nothing_is_plain_text(self) -> None:
        PLAIN.check()
        assert PLAIN.credentials() is None
        assert PLAIN.token_source() is None

    def test_all_of_it(self, authority: Authority) -> None:
        pair = authority.issue("client")
        security = ChannelSecurity(ca=str(authority.cert), cert=str(pair.cert), key=str(pair.key), server_name="tier")
        security.check()
        assert security.credentials() is not None

    def test_the_machines_own_authorities(self) -> None:
        ChannelSecurity(ca=SYSTEM).check()

    def test_a_certificate_without_key_and_the_other_way_round(self, authority: Authority) -> None:
        pair = authority.issue("client")
        ca = str(authority.cert)
        with pytest.raises(SecurityError, match=r"certificate \(.*client\.crt\) without its key"):
            ChannelSecurity(ca=ca, cert=str(pair.cert)).check()
        with pytest.raises(SecurityError, match=r"key \(.*client\.key\) without its certificate"):
            ChannelSecurity(ca=ca, key=str(pair.key)).check()

    def test_a_certificate_without_tls(self, authority: Authority) -> None:
        pair = authority.issue("client")
        with pytest.raises(SecurityError, match="needs TLS; say whom to trust: TLS_CA"):
            ChannelSecurity(cert=str(pair.cert), key=str(pair.key)).check()
        with pytest.raises(SecurityError, match="needs TLS"):
            ChannelSecurity(server_name="tier").check()

    @pytest.mark.parametrize(
        ("content", "fault"), [(None, "No such file"), (b"", "is empty"), (b"\xff text", "no certificate in PEM")]
    )
    def test_a_file_that_is_no_authority(self, tmp_path: Path, content: bytes | None, fault: str) -> None:
        path = tmp_path / "wrong.crt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SecurityError, match=f"{path}.*{fault}"):
            ChannelSecurity(ca=str(path)).check()

    def test_a_key_of_another_certificate(self, authority: Authority) -> None:
        one, other = authority.issue("one"), authority.issue("other")
        with pytest.raises(SecurityError, match="do not belong together"):
            ChannelSecurity(ca=str(authority.cert), cert=str(one.cert), key=str(other.key)).check()

    async def test_a_client_is_refused_before_it_calls(self, tmp_path: Path) -> None:
        with pytest.raises(SecurityError, match="CA file"):
            Client(security=ChannelSecurity(ca=str(tmp_path / "absent")))


class TestToken:
    def test_from_a_file_and_its_next_content(self, tmp_path: Path) -> None:
        path = tmp_path / "caller.token"
        path.write_text("first\n")
        source = ChannelSecurity(token_file=str(path)).token_source()
        assert source is not None
        assert source() == "first"
        path.write_text("second-one\n")
        assert source() == "second-one"
        path.write_text("")
        assert source() == "second-one"

    @pytest.mark.parametrize("text", ["", " \n", "two\nlines", "t\xf6ken"])
    def test_what_is_no_token_is_not_shown(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "caller.token"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SecurityError, match=r"caller\.token") as caught:
            ChannelSecurity(token_file=str(path)).check()
        assert not text.strip() or text.strip() not in str(caught.value)

    def test_two_tokens(self, tmp_path: Path) -> None:
        with pytest.raises(SecurityError, match="leave one out") as caught:
            ChannelSecurity(token="hidden", token_file=str(tmp_path / "t")).check()
        assert "hidden" not in str(caught.value)

    def test_a_token_is_in_no_representation(self) -> None:
        assert "hidden" not in repr(ChannelSecurity(token="hidden"))

    async def test_it_does_not_go_to_another_machine_as_plain_text(self) -> None:
        with pytest.raises(SecurityError, match=r"to 10\.0\.0\.7:7303 as plain text") as caught:
            open_channel("10.0.0.7:7303", security=ChannelSecurity(token="hidden"))
        assert "hidden" not in str(caught.value)
        for security in (ChannelSecurity(token="t", token_plain=True), ChannelSecurity(token="t", ca=SYSTEM)):
            await open_channel("10.0.0.7:7303", security=security).close()
        await open_channel("127.0.0.1:7303", security=ChannelSecurity(token="t")).close()

    @pytest.mark.parametrize(
        ("target", "loopback"),
        [
            ("127.0.0.1:1", True),
            ("localhost:1", True),
            ("[::1]:1", True),
            ("0.0.0.0:1", False),
            ("localhost.x:1", False),
        ],
    )
    def test_what_is_this_machine(self, target: str, loopback: bool) -> None:
        assert is_loopback(target) is loopback


def test_the_variables_of_the_command_line() -> None:
    names = ("CA", "CLIENT_CERT", "CLIENT_KEY", "SERVER_NAME")
    environment = {f"MEMORY3_TLS_{name}": name for name in names} | {
        "MEMORY3_TOKEN": "t",
        "MEMORY3_TOKEN_FILE": "f",
        "MEMORY3_TOKEN_PLAIN": "true",
    }
    wanted = ChannelSecurity("CA", "CLIENT_CERT", "CLIENT_KEY", "SERVER_NAME", "t", "f", token_plain=True)
    assert ChannelSecurity.from_environment(environment) == wanted
    assert ChannelSecurity.from_environment({}) == PLAIN
    with pytest.raises(SecurityError, match="MEMORY3_TOKEN_PLAIN='perhaps'"):
        ChannelSecurity.from_environment({"MEMORY3_TOKEN_PLAIN": "perhaps"})


@pytest.mark.parametrize("call", ["unary", "stream"])
async def test_a_cancelled_call_with_a_token_reaches_the_server(call: str) -> None:
    async with recording_server() as server:
        async with MemoryClient(server.address, security=ChannelSecurity(token="t")) as client:
            server.reply("MemoryService/Stat" if call == "unary" else "MemoryService/BatchGet", Hold())
            coroutine = (
                client.stat("bank", "f" * 32, ["a" * 32])
                if call == "unary"
                else anext(client.batch_get("bank", "f" * 32, ["a" * 32]))
            )
            task = asyncio.create_task(coroutine)
            await until(lambda: bool(server.calls), "the call arrives")
            task.cancel()
            async with asyncio.timeout(10):
                await server.calls[0].cancelled.wait()


class TestEntries:
    def test_a_new_token_and_its_entry(self) -> None:
        token, entry = new_token("ci", [Right.WRITE, Right.READ])
        assert token.startswith(PREFIX)
        assert len(token) > 40
        assert entry == TokenEntry("ci", digest(token), frozenset({Right.READ, Right.WRITE}))
        assert token not in entry.to_json()
        assert parse_entry(entry.to_json()) == entry
        assert new_token("ci", [Right.READ])[0] != token

    @pytest.mark.parametrize(
        ("line", "fault"),
        [
            ("m3_hidden", "no JSON object"),
            ('"m3_hidden"', "no object of"),
            ('{"name": "ci", "token": "m3_hidden", "rights": ["read"]}', "no object of"),
            ('{"name": "ci", "sha256": "m3_hidden", "rights": ["read"]}', "64 lower-case hex digits"),
            (LINE % (HASH.upper(), '["read"]'), "64 lower-case hex digits"),
            (LINE % (HASH, "[]"), "rights that are not"),
            (LINE % (HASH, '["m3_hidden"]'), "rights that are not some of read, write, admin"),
            (LINE % (HASH, '"read"'), "rights that are not"),
            (LINE.replace("ci", "m3 hidden") % (HASH, '["read"]'), "has a name"),
        ],
    )
    def test_what_is_no_entry_is_not_shown(self, line: str, fault: str) -> None:
        with pytest.raises(ValueError, match=fault) as caught:
            parse_entry(line)
        assert "hidden" not in str(caught.value)


class TestWatchedFiles:
    def test_the_same_object_until_a_file_changes(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("one")
        watched = WatchedFiles([path], lambda: [path.read_text()])
        first = watched.current()
        assert watched.current() is first
        path.write_text("another")
        assert watched.current() == ["another"]

    def test_a_swapped_folder_is_seen(self, tmp_path: Path) -> None:
        # As Kubernetes mounts secrets: file -> ..data/file, and ..data is a link that is replaced.
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text(name)
        data, link = tmp_path / "data", tmp_path / "next"
        data.symlink_to("old")
        watched = WatchedFiles([data / "file"], (data / "file").read_text)
        link.symlink_to("new")
        link.replace(data)
        assert watched.current() == "new"

    def test_what_cannot_be_used_is_logged_once_and_leaves_the_old_value(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "number"
        path.write_text("1")
        watched = WatchedFiles([path], lambda: int(path.read_text()))
        path.write_text("one")
        assert [watched.current(), watched.current()] == [1, 1]
        assert len(caplog.records) == 1
        path.unlink()
        assert watched.current() == 1
        path.write_text("12")
        assert watched.current() == 12

    def test_the_first_reading_must_succeed(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="absent"):
            WatchedFiles([tmp_path / "absent"], (tmp_path / "absent").read_text)
