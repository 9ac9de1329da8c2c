"""What another tool of Hazelcast sees in a map, and does to it: hazelcast-python-client, which others wrote.

    hazelcast_tool.py ADDRESS MAP get KEY | put KEY VALUE | replace KEY NEW | life KEY

Prints one line of JSON. `life` is how many milliseconds an entry was given, null when it has no end. `replace` is
`replaceIfSame` alone, which leaves the entry with the life that the map's configuration gives it.
"""

import json
import logging
import sys

import hazelcast

FOREVER = 2**63 - 1

address, name, command, key, *rest = sys.argv[1:]
logging.disable(logging.CRITICAL)
client = hazelcast.HazelcastClient(
    cluster_name="dev", cluster_members=[address], cluster_connect_timeout=30
)
entries = client.get_map(name).blocking()
if command == "get":
    said = entries.get(key)
elif command == "put":
    said = entries.put(key, rest[0])
elif command == "replace":
    said = entries.replace_if_same(key, entries.get(key), rest[0])
elif command == "life":
    ttl = entries.get_entry_view(key).ttl
    said = None if ttl == FOREVER else ttl
else:
    raise SystemExit(f"no such command: {command}")
print(json.dumps(said))
client.shutdown()
