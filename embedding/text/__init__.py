"""Clean text: Slack markup and control characters out, offsets right."""
