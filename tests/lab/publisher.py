"""The part of snap/leftovers.yaml and the hook of snap/hooks, in a snap of a throwaway host. snapcraft would fetch the
part's packages from an archive; here it is the host's own, which has the same, that is copied."""

from __future__ import annotations

from pathlib import Path

from lab.machine import Machine

TOP = Path(__file__).resolve().parents[2]
HOOK = {"meta/hooks/remove": (TOP / "snap/hooks/remove").read_text()}
SOURCES = "/var/tmp/leftovers-part"
# What the packages of the part have, with the libraries that a base would not have either.
PART = rf"""
share=usr/share/leftovers
mkdir -p $share usr/bin usr/sbin usr/lib/python3
cp -r {SOURCES}/leftovers {SOURCES}/hooks $share/
version=$(readlink /usr/bin/python3)
cp -L /usr/bin/python3 usr/bin/$version
ln -s $version usr/bin/python3
cp -r /usr/lib/$version usr/lib/
cp -r /usr/lib/python3/dist-packages usr/lib/python3/
cp -L /usr/sbin/nft usr/sbin/
cp -L /usr/bin/setpriv bin/
cp -P /usr/sbin/{{ip,ip6,eb}}tables* /usr/sbin/xtables-*-multi usr/sbin/
rm -f usr/sbin/{{ip,ip6,eb}}tables usr/sbin/{{ip,ip6,eb}}tables-{{save,restore}}
libraries=usr/lib/$(python3 -c 'import sys; print(sys.implementation._multiarch)')
mkdir -p $libraries/xtables
cp /$libraries/xtables/*.so $libraries/xtables/
cp -L /$libraries/libnftables.so.1 $libraries/
for file in $libraries/*.so* {{usr/bin/python3,usr/sbin/nft,usr/sbin/xtables-*-multi,bin/setpriv}} \
        usr/lib/$version/lib-dynload/*.so; do
    for library in $(ldd $file | grep -o '/[^ ]*' || :); do cp -nL $library $libraries/; done
done
rm -f $libraries/{{libc,ld-linux*}}.so*
"""


def bring(m: Machine) -> None:
    """Put our sources where PART finds them."""
    m.put(TOP / "src/leftovers", f"{SOURCES}/leftovers")
    m.put(TOP / "hooks", f"{SOURCES}/hooks")
    m.run(f"find {SOURCES} -name __pycache__ -prune -exec rm -r {{}} +")
