"""What a maintainer script will do: the little of sh that they are written in, read as `SCRIPT remove` would run it.

Whatever is not understood is "perhaps", and a perhaps is no: then the one who asks does the work himself.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from leftovers.host import Host

__all__ = ["stops"]

# Here-documents are no commands; nor are comments.
HERE = re.compile(r"<<-?[ \t]*(['\"\\]?)(\w+)\1?[^\n]*\n(?:.*\n)*?\t*\2$", re.MULTILINE)
TOKEN = re.compile(
    r"(?P<blank>(?:[ \t]|\\\n)+|(?<![^\s;&|()])\#[^\n]*)|(?P<operator>\n|;;|&&|\|\||[0-9]*[<>][<>&|]*|[;&|()])"
    r"|(?P<part>'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.|.)",
    re.DOTALL,
)
ENDS = frozenset(("\n", ";", "&", "|", "&&", "||", ")", ";;", ""))
ARGUMENT = re.compile(r"\$(?:1|\{1(?::?-[^}]*)?\})(?![0-9])")
NOTHING = re.compile(r"\$(?:DPKG_ROOT\b|\{DPKG_ROOT(?::?-)?\})")
# Of systemctl and deb-systemd-invoke: what leaves a stop a stop that is waited for.
HARMLESS = {"--now", "-q", "--quiet", "--no-ask-password", "--system"}
TOOLS = {"systemctl", "deb-systemd-invoke"}
Truth = bool | None  # None is perhaps


def stops(host: Host, text: str, unit: str, tools: Collection[str]) -> bool:
    """Whether this script, called with `remove` while the unit is up, surely stops it by one of these tools."""
    script = Script(host, unit, tools, tokens(HERE.sub("\n", text)))
    try:
        script.block(True)
    except (IndexError, RecursionError):
        return False  # not sh as we know it
    return script.found and not script.rest()


def tokens(text: str) -> list[str]:
    """Words, unquoted, and operators. A word that was quoted is never an operator or a reserved word."""
    found: list[str] = []
    word: str | None = None
    for match in TOKEN.finditer(text):
        part = match["part"]
        if part is not None:
            quoted = part[0] in "'\"\\" and len(part) > 1
            word = (word or "") + (part.strip(part[0]) if quoted and part[0] != "\\" else part[-1] if quoted else part)
            continue
        if word is not None:
            found.append(f"={word}")
            word = None
        if match["operator"]:
            found.append(match["operator"])
    return [*found, f"={word}"] if word is not None else found


def both(one: Truth, other: Truth) -> Truth:
    return False if one is False or other is False else True if one and other else None


def negated(one: Truth) -> Truth:
    return None if one is None else not one


class Script:
    """Reads and runs at once. Of each command it is known whether it is reached (`live`), and what it returns."""

    def __init__(self, host: Host, unit: str, tools: Collection[str], words: list[str]) -> None:
        self.host, self.unit, self.tools, self.words = host, unit, tools, words
        self.at = 0
        self.found = False
        self.goes_on: Truth = True  # no exit has been

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self, *wanted: str) -> str:
        """The next token; of these, if any are named. Raises IndexError."""
        token = self.words[self.at]
        if wanted and token not in wanted:
            raise IndexError(token)
        self.at += 1
        return token

    def rest(self) -> bool:
        return self.at < len(self.words)

    def lines(self, *also: str) -> None:
        while self.peek() in ("\n", *also):
            self.at += 1

    def block(self, live: Truth, *ends: str) -> Truth:
        """Lists up to one of these words, or the end of the script. Returns what the last one returns."""
        status: Truth = True
        self.lines(";", "&")
        while self.peek() not in (*ends, ""):
            status = self.both_or_either(live)
            if self.peek() not in ends:
                if self.peek() not in ("\n", ";", "&", ""):
                    raise IndexError(self.peek())
                self.lines(";", "&")
        return status

    def both_or_either(self, live: Truth) -> Truth:
        status = self.pipeline(live)
        while self.peek() in ("&&", "||"):
            runs = status if self.take() == "&&" else negated(status)
            self.lines()
            after = self.pipeline(both(live, runs))
            status = after if runs else status if runs is False else None
        return status

    def pipeline(self, live: Truth) -> Truth:
        if self.peek() == "=!":
            self.take()
            return negated(self.pipeline(live))
        status = self.command(live)
        if self.peek() == "&":
            return None
        while self.peek() == "|":
            self.take()
            self.lines()
            self.command(both(live, None))
            status = None
        return status

    def command(self, live: Truth) -> Truth:
        first = self.peek()
        if first == "=if":
            return self.branches(live)
        if first == "=case":
            return self.cases(live)
        if first in ("=while", "=until", "=for"):
            self.take()
            if first == "=for":
                while self.peek() != "=do":
                    self.take()
            else:
                self.block(both(live, None), "=do")
            self.take("=do")
            self.block(both(live, None), "=done")
            self.take("=done")
            return self.redirected(None)
        if first in ("={", "("):
            self.take()
            end = "=}" if first == "={" else ")"
            # An exit in a subshell ends that one only; what it means for the rest is not for us to follow.
            status = self.block(live if first == "={" else both(live, None), end)
            self.take(end)
            return self.redirected(status)
        if self.words[self.at + 1 : self.at + 3] == ["(", ")"]:
            self.at += 3
            self.lines()
            return self.command(False) and None  # a function: who calls it is not followed
        return self.simple(live)

    def redirected(self, status: Truth) -> Truth:
        while self.peek()[-1:] in ("<", ">") or self.peek()[-2:] in ("<&", ">&", ">|"):
            self.at += 2
        return status

    def branches(self, live: Truth) -> Truth:
        word = self.take()
        while word in ("=if", "=elif"):
            holds = self.block(live, "=then")
            self.take("=then")
            self.block(both(live, holds), "=elif", "=else", "=fi")
            live = both(live, negated(holds))
            word = self.take("=elif", "=else", "=fi")
        if word == "=else":
            self.block(live, "=fi")
            self.take("=fi")
        return self.redirected(None)

    def cases(self, live: Truth) -> Truth:
        self.take()
        subject = self.value(self.take())
        self.lines()
        self.take("=in")
        self.lines()
        while self.peek() != "=esac":
            if self.peek() == "(":
                self.take()
            matches: Truth = False
            while self.peek() != ")":
                token = self.take()
                pattern = self.value(token) if token != "|" else ""
                if pattern is None or subject is None:
                    matches = matches or None
                elif token != "|" and fnmatchcase(subject, pattern):
                    matches = True
            self.take(")")
            self.block(both(live, matches), ";;", "=esac")
            live = both(live, negated(matches))
            if self.peek() == ";;":
                self.take()
            self.lines()
        self.take("=esac")
        return self.redirected(None)

    def simple(self, live: Truth) -> Truth:
        words: list[str | None] = []
        while self.peek() not in ENDS:
            token = self.take()
            if token[0] == "=":
                words.append(self.value(token))
            elif token == "(":
                raise IndexError(token)  # $(...), unquoted
            else:
                self.take()  # where it is redirected to
        while words and words[0] is not None and re.match(r"\w+=", words[0]):
            words.pop(0)
        if not words:
            return True
        live = both(live, self.goes_on)
        name = (words[0] or "").rpartition("/")[2]
        if name in ("exit", "return", "exec"):
            self.goes_on = both(self.goes_on, negated(live))
            return None
        if name in ("true", ":", "set", "false"):
            return name != "false"
        if name in ("[", "test"):
            return self.test(words[1:-1] if name == "[" else words[1:])
        if name in ("command", "which") and TOOLS & set(words):
            return True
        if name in TOOLS:
            return self.asks_systemd(name, words[1:], live)
        return None

    def asks_systemd(self, name: str, words: list[str | None], live: Truth) -> Truth:
        options = {word for word in words if word is None or word.startswith("-")}
        verb, *units = [word for word in words if word is not None and not word.startswith("-")] or [""]
        if self.unit not in units or not options <= HARMLESS:
            return None
        if verb == "is-active":
            return True
        # The last command of a pipeline is not reached for certain either: its `live` is perhaps.
        if live and self.peek() not in ("|", "&") and name in self.tools:
            self.found |= verb == "stop" or (verb == "disable" and "--now" in options)
        return None

    def value(self, token: str) -> str | None:
        """A word with what we know of the variables in it; None if there are others."""
        text = NOTHING.sub("", ARGUMENT.sub("remove", token[1:]))
        return None if "$" in text or "`" in text else text

    def test(self, words: list[str | None]) -> Truth:
        if words[:1] == ["!"]:
            return negated(self.test(words[1:]))
        if None in words or {"-a", "-o", "("} & set(words):
            return None
        if len(words) == 3 and words[1] in ("=", "==", "!="):
            return (words[0] == words[2]) is (words[1] != "!=")
        if len(words) != 2:
            return None
        operator, operand = words[0], words[1] or ""
        if operator in ("-z", "-n"):
            return (operand == "") is (operator == "-z")
        if operator in ("-d", "-e", "-f", "-x"):
            return operand == "/run/systemd/system" or self.host.exists(operand)
        return None
