"""Hostile bytes, a file for each way in, made by ``make.py``, which stands beside them.

The folder says who gets a file: ``secondary`` after it has named its start, ``secondary-silent``
before that, ``secondary-zrs2.0`` one that keeps no blobs; ``primary`` one with blobs and
``primary-zrs2.0`` one without; ``extension`` the writer of a stored transaction's extension. A file
is named EXPECTED.WHAT.bin: the exception with which it is refused, or ``legal``, and what it is.
``reasons.tsv`` has what the exceptions say.
"""
