#!/usr/bin/env python3
"""Damages one sealed file in many ways and asserts that reader.check refuses each, and never fails in another way.

    selftest.py [PLACE [FILE]]
"""

import random, sys

import reader

place = reader.Place(sys.argv[1] if len(sys.argv) > 1 else "place")
name = sys.argv[2] if len(sys.argv) > 2 else "empty.csv.dseg"
good = open(name, "rb").read()
reader.check(place, good)
segment = reader.Segment(place, good)
starts = sorted(block.offset for lane in segment.lanes.values() for block in lane.blocks) + [segment.end]
accepted, verdicts = [], {}

def refused(data, what):
    try:
        reader.check(place, data)
    except reader.Refused as reason:
        verdict = str(reason).partition(":")[0]
        if verdict in ("torn", "corrupt", "unfinished"):
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
        return
    accepted.append(what)  # any other exception ends the test

def flipped(bit, fix=None):
    data = bytearray(good)
    data[bit // 8] ^= 128 >> bit % 8
    if fix == "block":     # an attacker who makes the CRC right again
        start = max(s for s in starts if s <= bit // 8)
        data[start + 40:start + 44] = reader.crc32c(segment.id + data[start:start + 40])
    if fix == "header":
        data[108:112] = reader.crc32c(data[:108])
    return bytes(data)

def run(title, cases):
    before = len(accepted)
    count = 0
    for what, data in cases:
        refused(data, what)
        count += 1
    print(f"{count:6} {title}: {len(accepted) - before} accepted")
    return accepted[before:]

chosen = random.Random(1)
block_bits = [8 * (start + octet) + bit for start in starts for octet in range(44) for bit in range(8)]
cuts = sorted(set(starts + [0, 111, 112, len(good) - 1]) | set(chosen.sample(range(len(good)), 500)))[:]

run("bits of the header", ((b, flipped(b)) for b in range(112 * 8)))
run("bits of block headers", ((b, flipped(b)) for b in block_bits))
run("random bits", ((b, flipped(b)) for b in chosen.sample(range(len(good) * 8), min(2000, len(good) * 8))))
run("cuts", ((c, good[:c]) for c in cuts))
run("octets appended", ((n, good + bytes(n)) for n in (1, 8, 44, 64)))
assert not accepted, accepted
print("        verdicts so far (SEG-19):", verdicts)

# An attacker makes the checksums right again: the tags and the running hash are left.
run("bits of the header, CRC right", ((b, flipped(b, "header")) for b in range(108 * 8)))
run("bits of block headers, CRC right", ((b, flipped(b, "block")) for b in block_bits if (b // 8 - max(s for s in starts if s <= b // 8)) < 40))
assert not accepted, accepted
print("all refused")
