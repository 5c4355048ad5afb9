"""What a judge and an untrusted function say to each other. All of it is private to the sandbox.

`_calls` is the conversation, `_values` the values in it, `_frames` the messages that carry them.
"""
