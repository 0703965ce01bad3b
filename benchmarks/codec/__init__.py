"""What the codec takes for each message, by itself.

    python -m pytest benchmarks/codec

Each round is of a thousand messages: a millisecond in the table is a microsecond a message.
"""
