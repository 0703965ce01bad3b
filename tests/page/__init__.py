"""The page of the status server, in a real browser.

`browser` is the browser, `fake` a node that says whatever a test wants.
"""
