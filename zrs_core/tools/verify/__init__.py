"""Whether two databases hold the same, as `zrs verify` finds out.

`pairs` compares two sides (`zrs_core.storage.compare`): `files` and `stream` are such sides, and
`same_bytes` is the fast way past what two files have alike. Then come `blobs`, `current` and
`dangling`. `saved` keeps where a run was.
"""
