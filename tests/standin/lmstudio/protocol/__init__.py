"""The LM Studio protocol: messages, framing, calls and channels."""
