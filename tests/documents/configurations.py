"""Configurations that documents show, read as the servers read theirs."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import trustme
import ZConfig

# Of a file for a command, which has a storage, or of Zope's, which has databases with mount points.
_SCHEMA = """
<schema>
  <import package="ZODB"/>
  <sectiontype
      name="zodb_db" extends="zodb" implements="ZODB.database" datatype="ZODB.config.ZODBDatabase">
    <multikey name="mount-point" attribute="mount_points"/>
  </sectiontype>
  <key name="instancehome"/>
  <multisection type="ZODB.database" name="*" attribute="databases"/>
  <multisection type="ZODB.storage" name="*" attribute="storages"/>
</schema>
"""


def read_configuration(text: str, directory: Path) -> None:
    """Read a `zeo.conf`, `zope.conf`, or a file with a storage; nothing is opened.

    What a configuration of zc.zrs says is read by this package, as the documents promise.

    :param directory: that of the document, in which there are the certificates that it names.
    :raises ZConfig.ConfigurationError: it is wrong.
    """
    text = text.replace("%import zc.zrs", "%import zrs_core")
    if "%define INSTANCE" not in text:
        # It stands at the top of a zope.conf.
        text = f"%define INSTANCE {directory}\n{text}"
    certificates = directory / "etc" / "zrs"
    if str(certificates) in text and not certificates.exists():
        _make_certificates(certificates)
    if "<zeo>" in text:
        schema = ZConfig.loadSchema(str(files("ZEO") / "schema.xml"))
    else:
        schema = ZConfig.loadSchemaFile(io.StringIO(_SCHEMA))
    ZConfig.loadConfigFile(schema, io.StringIO(text))


def _make_certificates(directory: Path) -> None:
    directory.mkdir(parents=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    for name in "primary", "secondary":
        certificate = authority.issue_cert(f"{name}.example", "127.0.0.1")
        certificate.private_key_pem.write_to_path(str(directory / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(directory / f"{name}.pem"))
