#!/usr/bin/env python3
"""Opens single sealed records, written from sealed-records.md and keys.md alone, with the second reader's keys.

    records.py open   PLACE FILE     each record as hexadecimal digits, or why it is refused, as a JSON list
    records.py values PLACE FILE     intermediate values of each record, as JSON (for test vectors; contains keys)

FILE is a JSON list of objects with `tenant`, `type`, `context` (a list of names), and `row` and `sealed` as hexadecimal
digits. A comment `# REC-n` or `# KEY-n` names the requirement that the code below it implements.
"""

import datetime, json, sys

import reader
from reader import be, gcm_open, hkdf, need, octets, parts, same, sha256

def covers(period, day):
    # KEY-45
    date = datetime.date.fromisoformat(day)
    week = "{0}-W{1:02}".format(*date.isocalendar()[:2])
    return period in (day, day[:7], week)

def day_key(place, region, tenant, record_type, handle, values):
    """XAES key of a handle, of this scope."""
    # REC-3
    row = place.day_rows.get(handle + bytes(8))
    need(row, f"no day key {handle.hex()} in the store")
    need((row.region, row.tenant, row.record_type) == (region.name, tenant, record_type), "the key of the record belongs to somebody else")
    need((row.generation, row.state, row.parent_version) == (1, 1, 0), "day key: a row that no writer writes")
    # KEY-46
    fields = reader.Cursor(row.sealed, "day key")
    need(fields.number(1) == 1 and fields.number(1) == 2, "day key: version or kind")
    name, number, nonce, sealed = fields.take(16), fields.take(8), fields.take(12), fields.take(48)
    fields.end()
    parent, _ = place.tree(region, name)
    need((parent.tenant, parent.record_type) == (tenant, record_type) and covers(parent.period, row.period), "day key: another scope's tenant key")
    leaf = place.leaf(region, name, int.from_bytes(number, "big"))
    wrapping = hkdf(leaf, None, parts(b"domicile/v1/wrapping-key", b"\x02", name, number), 32)
    associated = parts(b"domicile/v1/day-key-row", be(1, row.kind), *row.scope(), be(4, row.version), be(8, row.generation), be(1, row.state),
                       row.name, row.commitment, be(4, row.parent_version))
    owner = parts(b"domicile/v1/wrapped-key", b"\x02", associated)
    data_key = gcm_open(wrapping, nonce, owner, sealed, "day key")
    # KEY-47
    both = hkdf(data_key, None, parts(b"domicile/v1/day-key", *row.scope(), be(4, row.version)), 64)
    need(same(both[32:], row.commitment) and row.name == row.commitment[:8] + bytes(8), "the commitment of the day key is another")
    values.update(tenant_leaf=leaf, wrapping_key=wrapping, data_key=data_key, day_key=both[:32], commitment=row.commitment)
    return both[:32]

def open_record(place, entry, values):
    tenant, record_type, row_id, sealed = entry["tenant"], entry["type"], bytes.fromhex(entry["row"]), bytes.fromhex(entry["sealed"])
    scope = next((s for s in ((tenant, record_type), (tenant, "all")) if s in place.homes), None)
    need(scope, f"{tenant} {record_type} has no home")
    region = place.region(place.homes[scope], "home")
    need(place.here and place.here.jurisdiction == region.jurisdiction, f"these records are at home in {region.name}")
    place.check_home(tenant, record_type, region)
    # REC-1, REC-2
    need(len(sealed) >= 49, "shorter than a sealed record")
    need(sealed[0] == 1, "another version of a sealed record")
    need(len(sealed) - 49 <= 16 << 20, "a record past the limit")
    handle, nonce, body = sealed[1:9], sealed[9:33], sealed[33:]
    key = day_key(place, region, tenant, record_type, handle, values)
    # REC-5
    need(1 <= len(row_id) <= 128, "no id of a row")
    binding = sha256(parts(b"domicile/v1/sealed-record", b"\x01", octets(region.name), octets(tenant), octets(record_type),
                           *(octets(name) for name in entry["context"])))
    values.update(binding=binding, associated=handle + binding + row_id)
    # REC-4, REC-7
    return reader.xaes_open(key, nonce, handle + binding + row_id, body, "sealed record")

def main(arguments):
    need(len(arguments) == 3 and arguments[0] in ("open", "values"), "usage: records.py open|values PLACE FILE")
    command, where, path = arguments
    place = reader.Place(where)
    with open(path, "rb") as file:
        entries = json.load(file)
    answers = []
    for entry in entries:
        values = {}
        try:
            record = open_record(place, entry, values).hex()
        except reader.Refused as error:
            record = f"refused: {error}"
        answers.append(record if command == "open" else {**{name: value.hex() for name, value in values.items()}, "record": record})
    print(json.dumps(answers, indent=1))
    return 0

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except reader.Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        sys.exit(1)
