"""component.xml, which ZConfig reads for `%import zrs_core`, made from the table of options.

`python -m zrs_core.config.component > zrs_core/component.xml` writes it anew.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from xml.sax.saxutils import escape

from . import table
from .table import Option

_COMPONENT = """\
<component prefix="zrs_core.config.zconfig">

  <!-- Made by `python -m zrs_core.config.component` from zrs_core/config/table.py. -->

  <description>
    Storages that are replicated from, and storages that replicate.
  </description>

  <sectiontype name="tls" datatype=".TLS" keytype=".tls_key">

    <description>
      Encrypts and authenticates the connections of a zrs section. All files are PEM. They are
      read when the configuration is read, and again for each connection.
    </description>

{tls}

  </sectiontype>

  <sectiontype name="zrs" datatype=".ZRS" keytype=".zrs_key" implements="ZODB.storage">

    <description>
      A storage that is replicated from (replicate-to), that replicates (replicate-from), or both.
    </description>

    <section type="ZODB.storage" name="*" attribute="base" required="yes">
      <description>
        The storage with the data: a filestorage, or another storage that iterates over its
        transactions (replicate-to) or restores them (replicate-from), such as a relstorage with
        history.
      </description>
    </section>

    <section type="tls" name="*" attribute="tls">
      <description>
        Encrypts and authenticates the connections. Without it they are plain text.
      </description>
    </section>

{zrs}

  </sectiontype>

</component>
"""

_SINGLE = """\
    <key name="{key}" datatype=".{datatype}" required="no">
      <description>
{description}
      </description>
    </key>"""

_MULTIPLE = """\
    <multikey name="{key}" datatype=".{datatype}" attribute="{name}" required="no">
      <description>
{description}
      </description>
    </multikey>"""


def component() -> str:
    """Return the text of component.xml."""
    zrs = (table.ADDRESSES, table.BOTH, table.SECONDARY, table.PRIMARY, table.STATUS)
    return _COMPONENT.format(
        tls=_keys(table.TLS.values()),
        zrs=_keys(option for part in zrs for option in part.values()),
    )


def _keys(options: Iterable[Option]) -> str:
    return "\n\n".join(map(_key, options))


def _key(option: Option) -> str:
    text = option.reference()
    if option.needs is not None:
        text += f" Only with {option.needs.replace('_', '-')}."
    return (_MULTIPLE if option.each else _SINGLE).format(
        key=option.key,
        name=option.name,
        datatype=option.each or option.name,
        description=_filled(escape(text), " " * 8),
    )


def _filled(text: str, indent: str) -> str:
    # Not at hyphens: they are parts of names.
    return textwrap.fill(
        text, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


if __name__ == "__main__":
    print(component(), end="")
