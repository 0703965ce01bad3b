"""Must never be imported: hostile pickles name it."""


def bang(*arguments: object) -> None:
    raise SystemExit("a pickle was executed")
