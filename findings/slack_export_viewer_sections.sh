#!/usr/bin/env bash
# Version: slack-export-viewer 3.5.0 (PyPI).
# Behaviour: of a message with Block Kit blocks it shows the text of `rich_text` and what has `fields` or `elements`. A
#   `section` or `header` block that has only `text`, which is how most apps write, is logged as an unknown block type
#   and shown as nothing, and the message's own `text`, which says the same, is not used either, since blocks are there.
#   Such a message stands in the archive and is empty to its reader; a message with no text at all is at least marked.
# Source: slackviewer/message.py of that version (`msg`, `_generate_blocks_text`); Slack's reference of the section block
#   asks for `text` or `fields`.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q slack-export-viewer==3.5.0 2>/dev/null
mkdir -p "$work/export/general"
cat > "$work/export/users.json" <<'JSON'
[{"id": "U1", "name": "ada", "profile": {"display_name": "Ada"}}]
JSON
cat > "$work/export/channels.json" <<'JSON'
[{"id": "C1", "name": "general", "members": ["U1"]}]
JSON
cat > "$work/export/general/2025-03-03.json" <<'JSON'
[{"type": "message", "user": "U1", "ts": "1740960001.000100", "text": "Deploy of shop failed",
  "blocks": [{"type": "header", "text": {"type": "plain_text", "text": "Deploy"}},
             {"type": "section", "text": {"type": "mrkdwn", "text": "Deploy of shop failed"}}]},
 {"type": "message", "user": "U1", "ts": "1740960002.000100", "text": "plain words"}]
JSON
cat > "$work/read.py" <<'PY'
import logging, re, sys
from types import SimpleNamespace
from slackviewer.reader import Reader

logging.disable(logging.CRITICAL)
config = SimpleNamespace(archive=sys.argv[1], since=None, hide_channels=[], filter_user=None, thread_note=True,
                         skip_channel_member_change=False)
shown = [re.sub(r"<[^>]+>", "", message.msg).strip() for message in Reader(config).compile_channels()["general"]]
print("shown:", shown)
sys.exit(shown != ["", "plain words"])
PY
"$work/venv/bin/python" "$work/read.py" "$work/export" | sed "s|$work/||"

# Saw, on Python 3.11:
# Archive already extracted. Viewing from export...
# shown: ['', 'plain words']
