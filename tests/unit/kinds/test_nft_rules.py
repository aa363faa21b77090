"""What other programs write into nft's tables, where libnftables would not."""

from __future__ import annotations

import pytest

from leftovers.errors import ToolFault
from leftovers.kinds import nft_rules
from leftovers.kinds.nft_rules import comment, texts
from leftovers.run import Completed

PRINTED = """\
table ip cni_hostport { # handle 1
	chain hostports { # handle 2
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport 80 accept comment "x
		udp dport 1 accept # handle 5
" # handle 4
		tcp dport 81 accept comment "# handle 9" # handle 5
		tcp dport 82 accept # handle 6
	}
}
"""


def printed(monkeypatch: pytest.MonkeyPatch, text: str) -> dict[int, str]:
    monkeypatch.setattr(nft_rules, "run", lambda argv, **_: Completed(0, text, ""))
    monkeypatch.setattr(nft_rules, "find", lambda name: f"/usr/sbin/{name}")
    return texts("ip", "cni_hostport")


def test_a_comment_with_a_newline_lends_no_rule_another_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, PRINTED) == {4: '"', 6: "tcp dport 82 accept"}


def test_texts_are_only_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(argv: list[str], **_: object) -> Completed:
        raise ToolFault("nft", "No such file or directory")

    assert printed(monkeypatch, "") == {}
    monkeypatch.setattr(nft_rules, "run", refused)
    assert texts("ip", "cni_hostport") == {} and texts("ip", "--file=x") == {}
    monkeypatch.setattr(nft_rules, "find", lambda name: None)
    assert texts("ip", "cni_hostport") == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ""),
        (b"\0\4abc\0", "abc"),
        (b"\1\2xy\0\4abc\0", "abc"),  # another part comes first
        (b"\0\xff" + b"abc\0", "abc"),  # says that it is longer than it is
        (b"\0", ""),
        (b"\0\0", ""),
        (b"\1\xffabc", ""),
        (b"\0\5a\0b\0\0", "a"),
        (b"\0\3\xff\xfe\0", "\udcff\udcfe"),
        (b"\0\6a\nb # ", "a\nb # "),
    ],
)
def test_comments(data: bytes, said: str) -> None:
    assert comment(data) == said
