#!/usr/bin/env python3
"""A second reader of Domicile segments, written from segment.md and keys.md alone.

    reader.py open   PLACE FILE     what went in, byte for byte, to standard output
    reader.py check  PLACE FILE     verify everything that can be verified; one JSON object, or `refused: ...`
    reader.py values PLACE FILE     intermediate values of every lane, as JSON (for test vectors; contains keys)

PLACE is a directory with a domicile.toml, or the path of such a file.
A comment `# SEG-n` or `# KEY-n` names the requirement that the code below it implements.
"""

import datetime, hashlib, hmac, json, os, re, sqlite3, stat, struct, sys, tomllib, urllib.parse
from collections import namedtuple
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

class Refused(Exception):
    """Why a file, a key or a store is not accepted."""

class Damage(Refused):
    """SEG-19: octets that are no whole block, or a tag that does not verify. Torn or corrupt, depending on where."""

def need(condition, what, kind=Refused):
    if not condition:
        raise kind(what)

# ---------------------------------------------------------------- encodings and primitives (keys.md: Notation, Primitives)

def be(width, number):
    return number.to_bytes(width, "big")

def octets(text):
    return text.encode("utf-8")

def parts(*items):
    return b"".join(be(8, len(item)) + item for item in items)

def short(item):
    return be(1, len(item)) + item

def pad8(length):
    return -(-length // 8) * 8

def sha256(*items):
    return hashlib.sha256(b"".join(items)).digest()

def same(a, b):
    return hmac.compare_digest(a, b)

def hkdf(ikm, salt, info, length):
    return HKDF(algorithm=hashes.SHA512(), length=length, salt=salt, info=info).derive(ikm)

def gcm_open(key, nonce, ad, sealed, what):
    try:
        return AESGCM(key).decrypt(nonce, sealed, ad)
    except InvalidTag:
        raise Refused(f"{what}: the tag does not verify") from None

def xaes_open(key, nonce, ad, sealed, what):
    """XAES-256-GCM as C2SP specifies it: a NIST SP 800-108 counter KDF over AES-CMAC, then AES-256-GCM."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    doubled = int.from_bytes(block.update(bytes(16)), "big") << 1
    k1 = doubled ^ (1 << 128 | 0x87) if doubled >> 128 else doubled
    message = [int.from_bytes(b"\0" + be(1, i) + b"X\0" + nonce[:12], "big") for i in (1, 2)]
    derived = b"".join(block.update(be(16, m ^ k1)) for m in message)
    return gcm_open(derived, nonce[12:], ad, sealed, what)

def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table

CRC_TABLE = crc_table()

def crc32c(data):
    value = 0xFFFFFFFF
    for octet in data:
        value = CRC_TABLE[(value ^ octet) & 255] ^ value >> 8
    return be(4, value ^ 0xFFFFFFFF)

def with_crc(data):  # `crc(x)` of SEG-27
    return data + crc32c(data)

# Points of order 1, 2, 4 and 8 by their y; with those and non-canonical encodings refused, a signature is "verified strictly".
ED_P = 2**255 - 19
ED_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7
ED_SMALL = {0, 1, ED_P - 1, ED_Y8, ED_P - ED_Y8}

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

def public_key(text, what):
    """What verifies a region's signatures: ("ed25519", 32 octets) or ("p256", a point)."""
    scheme, _, digits = text.partition(":")
    need((scheme, len(digits)) in (("ed25519", 64), ("p256", 66)) and re.fullmatch("[0-9a-f]+", digits), what)
    if scheme == "ed25519":
        return scheme, bytes.fromhex(digits)
    try:
        return scheme, ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(digits))
    except ValueError:
        raise Refused(what) from None

def verify_ecdsa(public, message, signature, what):
    # KEY-20
    try:
        r, s = decode_dss_signature(signature)
        need(s <= P256_ORDER // 2 and encode_dss_signature(r, s) == signature, f"{what}: not the one encoding of a signature")
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        raise Refused(f"{what}: the signature does not verify") from None

def verify_signature(public, message, signature, what):
    scheme, public = public
    if scheme == "p256":
        return verify_ecdsa(public, message, signature, what)
    need(len(signature) == 64, f"{what}: a signature has 64 octets")
    for point in (public, signature[:32]):
        y = int.from_bytes(point, "little") & (1 << 255) - 1
        need(y < ED_P and y not in ED_SMALL, f"{what}: a weak point in the signature or key")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        raise Refused(f"{what}: the signature does not verify") from None

class Cursor:
    """Reads fields one after the other; every length is checked against what is left before it is used.  # SEG-1"""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def left(self):
        return len(self.data) - self.at

    def take(self, length):
        need(length <= self.left(), f"{self.what}: ends too early")
        self.at += length
        return self.data[self.at - length:self.at]

    def number(self, width):
        return int.from_bytes(self.take(width), "big")

    def signed(self, width):
        return int.from_bytes(self.take(width), "big", signed=True)

    def text(self):
        try:
            return self.take(self.number(1)).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(f"{self.what}: a text is not UTF-8") from None

    def end(self):
        need(self.left() == 0, f"{self.what}: {self.left()} octets too many")

# ---------------------------------------------------------------- a place: configuration, key files, key store

Region = namedtuple("Region", "name jurisdiction public root_path signing_path")

def read_key_file(path, pattern):
    # KEY-4
    try:
        info = os.lstat(path)
        with open(path, "rb") as file:
            content = file.read(4096)
    except OSError as error:
        raise Refused(f"{os.path.basename(path)}: {error.strerror}") from None
    need(stat.S_ISREG(info.st_mode), f"{path}: not a plain file")
    need(not info.st_mode & 0o177 and info.st_uid in (0, os.geteuid()), f"{path}: mode or owner")
    match = re.fullmatch(pattern, content)  # exact lines, each ended by LF, nothing else
    need(match, f"{path}: not of the form the page gives")
    return match

def month_of(period):
    # KEY-7
    try:
        if re.fullmatch(r"\d{4}-\d{2}", period):
            datetime.date.fromisoformat(period + "-01")
            return period
        if re.fullmatch(r"\d{4}-W\d{2}", period):
            return datetime.date.fromisocalendar(int(period[:4]), int(period[6:]), 1).isoformat()[:7]
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", period):
            return datetime.date.fromisoformat(period).isoformat()[:7]
    except ValueError:
        pass
    raise Refused(f"no period: {period!r}")

class Row(namedtuple("Row", "kind region tenant record_type period version generation state name commitment parent_version sealed")):
    """One row of the table `keys`."""

    def scope(self):
        return octets(self.region), octets(self.tenant), octets(self.record_type), octets(self.period)

    def check_commitment(self, label, key):
        # KEY-9
        name = b"" if self.generation == 1 else self.name
        expected = sha256(parts(octets("domicile/v1/commitment/" + label), *self.scope(), be(4, self.version), be(8, self.generation),
                                be(1, self.state), name, key))
        need(same(expected, self.commitment), f"the commitment of the {label} {self.name.hex()} is another")
        if self.generation == 1:
            need(self.name == self.commitment[:16], f"the name of the {label} is not the first of its commitment")

class Place:
    def __init__(self, path):
        # KEY-19
        toml_path = os.path.join(path, "domicile.toml") if os.path.isdir(path) else path
        base = os.path.dirname(os.path.abspath(toml_path))
        with open(toml_path, "rb") as file:
            config = tomllib.load(file)
        self.regions = {}
        for name, entry in config["regions"].items():
            public = public_key(entry["signing_key"], f"signing key of {name}")
            kms = entry["kms"]
            need(kms["provider"] == "local", f"no such key service: {kms['provider']}")
            self.regions[name] = Region(name, entry["jurisdiction"], public, os.path.join(base, kms["root"]), os.path.join(base, kms["signing"]))
        self.here = self.regions.get(config.get("here"))
        need(config["store"].startswith("sqlite://"), "only sqlite stores are known")
        self.read_store(os.path.join(base, config["store"][len("sqlite://"):]))
        self.roots, self.branches, self.trees = {}, {}, {}

    def read_store(self, path):
        uri = "file:" + urllib.parse.quote(path) + "?mode=ro"
        try:
            database = sqlite3.connect(uri, uri=True)
            database.execute("SELECT 1 FROM keys LIMIT 1")
        except sqlite3.OperationalError:  # a WAL database where nothing may be written, and no log is pending
            need(os.path.exists(path) and not os.path.exists(path + "-wal"), "the key store cannot be read")
            database = sqlite3.connect(uri + "&immutable=1", uri=True)
        rows = [Row(*row) for row in database.execute(f"SELECT {', '.join(Row._fields)} FROM keys")]
        self.tenant_rows = {row.name: row for row in rows if row.kind == 2}
        self.day_rows = {row.name: row for row in rows if row.kind == 4}
        self.branch_rows = {(row.region, row.period, row.version): row for row in rows
                            if row.kind == 1 and (row.tenant, row.record_type) == ("_region", "segment")}
        # KEY-16 to KEY-18
        self.homes = {(t, r): region for t, r, region in database.execute("SELECT tenant, record_type, region FROM homes")}
        self.statements = {row[0]: row[1:] for row in database.execute("SELECT id, body, signature FROM home_statements")}
        self.home_signed = {(t, r, own): s for t, r, own, s in database.execute("SELECT tenant, record_type, own, statement FROM home_signed")}
        self.chains = database.execute("SELECT chain, region, jurisdiction, begun, actor, signature FROM audit_chains ORDER BY chain").fetchall()
        self.events = {}
        for chain, *event in database.execute("SELECT chain, number, body, digest FROM audit_events ORDER BY chain, number"):
            self.events.setdefault(chain, []).append(event)
        database.close()

    def region(self, name, what):
        need(name in self.regions, f"{what}: no region {name!r} in the configuration")
        return self.regions[name]

    # ------------------------------------------------------------ keys

    def root_keys(self, region):
        # KEY-1, KEY-2, KEY-22; one under a passphrase (KEY-23) is not opened here
        if region.name not in self.roots:
            one = rb"id ([0-9a-f]{32})\nkey ([0-9a-f]{64})\ncheck ([0-9a-f]{64})\n"
            match = read_key_file(region.root_path, rb"domicile root key v1\nregion ([^\n]+)\n((?:" + one + rb"){1,12})")
            need(match[1] == octets(region.name), "the root key is another region's")
            roots = {}
            for fields in re.findall(one, match[2]):
                identity, key, check = (bytes.fromhex(field.decode()) for field in fields)
                need(identity not in roots, "two root keys have one id")
                need(same(check, hkdf(key, identity, parts(b"domicile/v1/local-root-check", match[1]), 32)), "a root key fails its check")
                roots[identity] = key
            self.roots[region.name] = roots
        return self.roots[region.name]

    def check_signing_key(self, region):
        # KEY-3
        match = read_key_file(region.signing_path, rb"domicile signing key v1\nregion ([^\n]+)\nkey ([0-9a-f]{64})\npublic ([0-9a-f]{64})\n")
        derived = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(match[2].decode())).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        need(match[1] == octets(region.name) and derived == bytes.fromhex(match[3].decode()) and region.public == ("ed25519", derived), f"the signing key of {region.name} is another")

    def branch_key(self, region, month, version):
        # KEY-5, KEY-6, KEY-8
        if (region.name, month, version) not in self.branches:
            row = self.branch_rows.get((region.name, month, version))
            need(row, f"no branch key of {region.name}, {month}, version {version}")
            need(row.state in (1, 2) and row.parent_version == 0, "the branch key was destroyed or has a parent")
            fields = Cursor(row.sealed, "branch key")
            need(fields.number(1) == 1 and fields.number(1) == 1, "branch key: custody or number of wraps")
            wrap = Cursor(fields.take(fields.number(2)), "wrap")
            fields.end()
            need(wrap.number(1) == 1, "wrap: unknown version")
            key = self.root_keys(region).get(wrap.take(16))
            need(key, "wrap: of another root key")
            nonce, sealed = wrap.take(24), wrap.take(48)
            wrap.end()
            context = {"domicile:generation": str(row.generation), "domicile:kind": "branch-key", "domicile:owner": "_region",
                       "domicile:period": month, "domicile:region": region.name, "domicile:version": str(row.version)}
            ad = parts(b"domicile/v1/local-wrap", *(octets(text) for pair in context.items() for text in pair))
            opened = xaes_open(key, nonce, ad, sealed, "branch key")
            row.check_commitment("branch-key", opened)
            self.branches[region.name, month, version] = opened
        return self.branches[region.name, month, version]

    def tree(self, region, name):
        """The row of a tenant key and its subtrees: (depth, prefix, node)."""
        if name not in self.trees:
            row = self.tenant_rows.get(name)
            need(row, f"no tenant key {name.hex()} in the store")
            need(row.region == region.name, "the tenant key is another region's")
            need(row.state in (1, 2), f"the tenant key {name.hex()} was destroyed")
            # KEY-7, KEY-10
            branch = self.branch_key(region, month_of(row.period), row.parent_version)
            key = hkdf(branch, None, parts(b"domicile/v1/branch/tenant-key"), 32)
            ad = parts(b"domicile/v1/tenant-key", be(1, row.kind), *row.scope(), be(4, row.version), be(8, row.generation),
                       be(1, row.state), row.name, row.commitment, be(4, row.parent_version))
            need(len(row.sealed) >= 40, "tenant key: too short")
            state = xaes_open(key, row.sealed[:24], ad, row.sealed[24:], "tenant key")
            row.check_commitment("tenant-key", state)
            # KEY-11
            fields = Cursor(state, "tenant key")
            need(fields.number(1) == 1, "tenant key: unknown version")
            count = fields.number(4)
            need(count * 41 == fields.left(), "tenant key: number of subtrees")
            subtrees, free = [], 0
            for _ in range(count):
                depth, prefix, node = fields.number(1), fields.number(8), fields.take(32)
                need(depth <= 64 and prefix % (1 << 64 - depth) == 0 and prefix >= free, "tenant key: subtrees overlap or are out of order")
                free = prefix + (1 << 64 - depth)
                subtrees.append((depth, prefix, node))
            self.trees[name] = row, subtrees
        return self.trees[name]

    def leaf(self, region, name, number):
        # KEY-11, KEY-12, KEY-13
        for depth, prefix, node in self.tree(region, name)[1]:
            if prefix <= number < prefix + (1 << 64 - depth):
                for bit in range(63 - depth, -1, -1):
                    node = hmac.digest(node, bytes([number >> bit & 1]), "sha256")
                return node
        raise Refused(f"leaf {number:016x} of key {name.hex()} was erased")

    # ------------------------------------------------------------ homes and audit

    def parse_statement(self, number):
        # KEY-16
        body, signature = self.statements[number]
        what = f"home statement {number}"
        fields = Cursor(body, what)
        need(fields.text() == "domicile/v1/home", f"{what}: label")
        named, jurisdiction, signer = fields.text(), fields.text(), fields.text()
        fields.signed(8)
        count = fields.number(4)
        need(count <= 256, f"{what}: more than 256 choices")
        choices = {}
        for _ in range(count):
            scope = (fields.text(), fields.text())
            left_out = [fields.text() for _ in range(fields.number(1))]
            need(left_out == sorted(set(left_out)) and (scope[1] == "all" or not left_out), f"{what}: types that are left out")
            choices[scope] = left_out
        fields.end()
        # KEY-17
        region = self.region(named, what)
        need(jurisdiction == region.jurisdiction, f"{what}: another jurisdiction")
        verify_signature(self.region(signer, what).public, body, signature, what)
        return region.name, signer, choices

    def check_home(self, tenant, record_type, region):
        # SEG-13, KEY-17
        scope = next((s for s in ((tenant, record_type), (tenant, "all")) if s in self.homes), None)
        need(scope, f"{tenant} {record_type} has no home")
        need(self.homes[scope] == region.name, f"{tenant} {record_type} is at home in {self.homes[scope]}, not in {region.name}")
        need(self.home_signed.get((*scope, 1)) in self.statements, f"the home of {tenant} {record_type} has not signed")
        left_out = self.check_signed(*scope, 1, region)
        need(scope[1] == record_type or record_type not in left_out, f"the home of {tenant} {record_type} was taken away")

    def check_signed(self, tenant, record_type, own, region):
        # KEY-17
        what = f"the home statement of {tenant} {record_type}"
        named, signer, choices = self.parse_statement(self.home_signed[tenant, record_type, own])
        need(named == region.name and (tenant, record_type) in choices, f"{what} does not name it in {region.name}")
        need(own == (signer == region.name), f"{what} was signed by {signer}")
        return choices[tenant, record_type]

    def check_store(self):
        for number in self.statements:
            self.parse_statement(number)
        for tenant, record_type, own in self.home_signed:
            home = self.homes.get((tenant, record_type))
            self.check_signed(tenant, record_type, own, self.region(home, "home"))
        self.check_audit()

    def check_audit(self):
        # KEY-18
        need(set(self.events) <= {row[0] for row in self.chains}, "audit events of a chain that never began")
        for chain, region_name, jurisdiction, begun, actor, signature in self.chains:
            what = f"audit chain {chain.hex()}"
            region = self.region(region_name, what)
            need(len(chain) == 16 and jurisdiction == region.jurisdiction, f"{what}: id or jurisdiction")
            beginning = parts(b"domicile/v1/audit-chain", chain, octets(region_name), octets(jurisdiction), begun.to_bytes(8, "big", signed=True), octets(actor))
            verify_signature(region.public, beginning, signature, what)
            digest = sha256(parts(b"domicile/v1/audit-begin", beginning, signature))
            for expected, (number, body, stored) in enumerate(self.events.get(chain, []), 1):
                need(number == expected, f"{what}: event {expected} is missing")
                digest = sha256(parts(b"domicile/v1/audit-event", digest, be(8, number), octets(body)))
                need(same(digest, stored), f"{what}: digest of event {number}")
                need(isinstance(json.loads(body), dict), f"{what}: event {number} is no object")

# ---------------------------------------------------------------- segment: header, blocks, lanes

HEADER, BLOCK, TAG = 112, 44, 16
OPEN, DATA, PREAMBLE, POSTAMBLE, COMMIT, SECTION, END, FOOTER = range(1, 9)
POST = 2  # the origin of what a post sealed
NAMES = ["", "lane open", "data", "preamble", "postamble", "commit", "section", "lane end", "footer"]
RANK = {OPEN: 0, PREAMBLE: 1, DATA: 2, COMMIT: 2, POSTAMBLE: 3, SECTION: 4, END: 5}  # SEG-6: order within a lane
SEALED, CONTINUED, CONTINUES = 1, 2, 4
NO_LANE = 0xFFFFFFFF
SUITES = {1: AESGCM, 2: ChaCha20Poly1305}  # SEG-3
TIMES, ARRIVALS, LONG = 1, 2, 4
MAX_PAYLOAD, MAX_BLOCKS, MAX_LANE, MAX_LANES, MAX_ORDINAL = 16 << 20, 1 << 24, 64 << 30, 1 << 20, 1 << 29

Block = namedtuple("Block", "offset header kind flags lane sequence ordinal nonce payload tag end")  # payload as in the file

# times: of the events; without them one, when the block was sealed. arrivals: or empty. number: in the lane, of the first record.
DataBlock = namedtuple("DataBlock", "sequence records times arrivals number")

@dataclass
class Lane:
    number: int
    descriptor: bytes
    tenant: str = ""
    record_type: str = ""
    period: str = ""
    suite: int = 0
    contents: int = 0
    source: int = 0
    cipher: object = None
    values: dict = field(default_factory=dict)
    blocks: list = field(default_factory=list)
    rank: int = 0
    data: list = field(default_factory=list)
    preamble: bytes = None
    postamble: bytes = None
    sections: list = field(default_factory=list)  # payloads of the section blocks
    records: int = 0
    bytes: int = 0
    size: int = 0     # octets of payloads
    end_digest: bytes = None

    def scope(self):
        return octets(self.tenant), octets(self.record_type), octets(self.period)

def parse_header(data):
    # SEG-2
    need(len(data) >= HEADER, "shorter than a header")
    header = data[:HEADER]
    need(header[:8] == bytes.fromhex("89445345470d0a1a"), "no segment: magic")
    need(crc32c(header[:108]) == header[108:], "header: CRC")
    fields = Cursor(header[8:], "header")
    need(fields.number(2) == 1, "header: unknown version")
    suite = fields.number(2)
    need(suite in SUITES, "header: unknown suite")
    segment_id = fields.take(32)

    def padded(width):
        length, text = fields.number(1), fields.take(width)
        need(length <= width and not any(text[length:]), "header: padding of a text")
        return text[:length].decode("ascii")
    try:
        region, jurisdiction = padded(32), padded(16)
    except UnicodeDecodeError:
        raise Refused("header: text") from None
    fields.take(8)
    need(fields.number(1) in (1, POST), "header: unknown origin")
    need(fields.number(1) == 0, "header: unknown flags")
    return header, suite, segment_id, region, jurisdiction

def max_descriptor(lane):
    return 4 << 10 if lane else 2 << 20

def parse_block(data, offset, segment_id):
    # SEG-4, SEG-6, SEG-7
    header = data[offset:offset + BLOCK]
    where = f"block at {offset}"
    need(len(header) == BLOCK, f"{where}: cut short", Damage)
    need(header[:4] == b"\xd0BLK", f"{where}: magic", Damage)
    need(crc32c(segment_id + header[:40]) == header[40:], f"{where}: CRC", Damage)
    kind, _ignored, flags, reserved, lane, sequence, ordinal, length, nonce = struct.unpack(">BBBBIIQI12s", header[4:40])
    need(reserved == 0, f"{where}: reserved octet")
    need(not flags & ~(SEALED | CONTINUED | CONTINUES), f"{where}: unknown flags")
    need(OPEN <= kind <= FOOTER or kind >= 0x80, f"{where}: unknown kind {kind}")
    need(bool(flags & SEALED) == (kind not in (OPEN, FOOTER)), f"{where}: sealed, or not, against its kind")
    need(flags & SEALED or nonce == bytes(12), f"{where}: a nonce without a seal")
    need(kind == DATA or not flags & (CONTINUED | CONTINUES), f"{where}: continued, and no data")
    need((lane == NO_LANE) == (kind == FOOTER), f"{where}: lane")
    need(lane < MAX_LANES or kind == FOOTER, f"{where}: lane beyond the limit")
    need(sequence < MAX_BLOCKS, f"{where}: sequence beyond the limit")
    need(ordinal < MAX_ORDINAL + (kind == FOOTER), f"{where}: ordinal beyond the limit")
    need(kind not in (DATA, PREAMBLE, POSTAMBLE) or lane != 0, f"{where}: {NAMES[kind % 9]} in lane 0")
    need(kind != COMMIT or lane == 0, f"{where}: commit outside lane 0")
    need(length <= MAX_PAYLOAD or kind == FOOTER, f"{where}: payload beyond 16 MiB")
    need(kind != OPEN or length <= max_descriptor(lane) + 154 + (65 if lane else 1385), f"{where}: opening too long")
    sealed_end = offset + BLOCK + length + (TAG if flags & SEALED else 0)
    end = pad8(sealed_end)
    need(end <= len(data), f"{where}: cut short", Damage)
    need(not any(data[sealed_end:end]), f"{where}: padding is not zeros", Damage)
    payload_end = offset + BLOCK + length
    return Block(offset, header, kind, flags, lane, sequence, ordinal, nonce, data[offset + BLOCK:payload_end], data[payload_end:sealed_end], end)

def parse_descriptor(lane, header_suite):
    # SEG-9
    fields = Cursor(lane.descriptor, f"descriptor of lane {lane.number}")
    what = fields.what
    need(fields.number(1) == 1, f"{what}: unknown version")
    lane.tenant, lane.record_type, lane.period = fields.text(), fields.text(), fields.text()
    need(0 < len(octets(lane.tenant)) <= 64 and 0 < len(octets(lane.record_type)) <= 32, f"{what}: length of a scope")
    need((lane.tenant == "_region") == (lane.number == 0), f"{what}: tenant")
    need(lane.number or lane.record_type == "segment", f"{what}: record type")
    month_of(lane.period)
    lane.suite = fields.number(2)
    need(lane.suite in SUITES and (lane.number or lane.suite == header_suite), f"{what}: suite")
    lane.compression = fields.number(1)
    need(lane.compression <= 1 and (lane.number or not lane.compression), f"{what}: unknown compression")
    framing, parameter = fields.number(1), fields.number(1)  # SEG-10
    need(framing <= 9 and (parameter & 0x7F <= 3 if framing == 3 else parameter <= (framing == 6)), f"{what}: unknown framing")
    lane.contents, lane.source = fields.number(1), fields.number(4)
    need(not lane.contents & ~(TIMES | ARRIVALS | LONG), f"{what}: unknown contents")
    need(lane.number or (framing, lane.contents, lane.source) == (0, 0, 0), f"{what}: lane 0 with contents")
    before = None
    for _ in range(fields.number(4)):
        name, _value = octets(fields.text()), fields.text()
        need(lane.number, f"{what}: lane 0 with a context")
        need(before is None or before < name, f"{what}: names of the context do not rise")
        before = name
    before = b""
    for _ in range(fields.number(4)):
        name = octets(fields.text())
        need(lane.number, f"{what}: lane 0 with findable fields")
        need(before < name, f"{what}: names of findable fields are empty or do not rise")
        before = name
        need(fields.number(1) in (1, 2), f"{what}: unknown normaliser")
    replaced = fields.number(4)
    need(lane.number == 0 or replaced == 0, f"{what}: replaced segments outside lane 0")
    fields.take(32 * replaced)
    fields.end()

def parse_data(payload, lane, block):
    # SEG-21, SEG-22
    what = f"data block {block.ordinal}"
    if lane.compression:
        # SEG-49
        how, length, packed = payload[:4], int.from_bytes(payload[4:8], "big"), payload[8:]
        need(len(payload) >= 8 and how in (bytes(4), b"\1\0\0\0") and length <= 16 << 20, f"{what}: head of a compressed block")
        if how[0]:
            import zstandard
            packed = zstandard.ZstdDecompressor().decompress(packed, max_output_size=length)
        need(len(packed) == length, f"{what}: length of a compressed block")
        payload = packed
    need(len(payload) >= 28, f"{what}: shorter than 28 octets")
    flags, n = payload[-4], int.from_bytes(payload[-3:], "big")
    need(n >= 1, f"{what}: no records")
    need(not flags & ~7 and flags & 6 != 6, f"{what}: flags")
    need(bool(flags & 1) == bool(lane.contents & TIMES), f"{what}: event times against the descriptor")
    need(bool(flags & 6) == bool(lane.contents & ARRIVALS), f"{what}: arrival numbers against the descriptor")
    behind = (8 * n + 16 if flags & 1 else 8) + (8 * n if flags & 2 else 0) + (8 if flags & 4 else 0) + 12
    room = len(payload) - behind - pad8(4 * n + 4)
    need(room >= 0 and room % 8 == 0, f"{what}: {n} records do not fit")
    offsets = struct.unpack_from(f"<{n + 1}i", payload, room)
    need(offsets[0] == 0 and all(a <= b for a, b in zip(offsets, offsets[1:])) and pad8(offsets[-1]) == room, f"{what}: offsets")
    need(not any(payload[offsets[-1]:room]) and not any(payload[room + 4 * n + 4:len(payload) - behind]), f"{what}: padding is not zeros")
    fields = Cursor(payload[len(payload) - behind:], what)
    if flags & 1:
        times = list(struct.unpack(f">{n}q", fields.take(8 * n)))
        need((fields.signed(8), fields.signed(8)) == (min(times), max(times)), f"{what}: earliest and latest time")
    else:
        times = [fields.signed(8)]
    arrivals = []
    if flags & 2:
        arrivals = list(struct.unpack(f">{n}q", fields.take(8 * n)))
    elif flags & 4:
        first = fields.signed(8)
        arrivals = list(range(first, first + n))
    return DataBlock(block.sequence, [payload[a:b] for a, b in zip(offsets, offsets[1:])], times, arrivals, fields.number(8))

def parse_sections(payload, found, what):
    # SEG-15: found is tag -> contents so far
    fields = Cursor(payload, what)
    while fields.left():
        tag, contents = fields.number(1), fields.take(fields.number(4))
        need(1 <= tag <= 4 or tag >= 0x80, f"{what}: unknown section {tag}")
        found[tag] = found.get(tag, b"") + contents

class Segment:
    """Reads and verifies all blocks up to lane 0's end. The footer is left to `check_footer`."""

    def __init__(self, place, data):
        self.place, self.data = place, data
        self.header, self.suite, self.id, region, jurisdiction = parse_header(data)
        self.fixed = self.header[:104]
        # SEG-13, first half
        self.region = place.region(region, "segment")
        need(self.region.jurisdiction == jurisdiction, f"jurisdiction: the header says {jurisdiction}, the configuration {self.region.jurisdiction}")
        need(place.here is None or place.here is self.region or place.here.jurisdiction == jurisdiction,
             f"what is at home in {region} ({jurisdiction}) is not opened in {place.here and place.here.name}")
        self.lanes, self.ordinal, self.durable, self.commits, self.segment_leaf = {}, 0, 0, [], None
        self.running = hashlib.sha256(b"domicile/v1/running-hash" + self.fixed)  # SEG-18
        self.finished = False
        at = HEADER
        if int.from_bytes(self.header[104:108], "big"):
            at = self.accept_by_ordinal()
        while not self.finished:
            need(at < len(data), "unfinished: the file ends before lane 0 does")  # SEG-19
            try:
                block = parse_block(data, at, self.id)
                self.accept(block)
            except Damage as damage:
                raise Refused(f"{self.verdict(at)}: {damage}") from None
            at = block.end
        self.end = at
        self.check_inputs()

    def accept_by_ordinal(self):
        # SEG-47: the blocks of a later edition may stand in another order
        at, blocks = HEADER, []
        while at < len(self.data):
            block = parse_block(self.data, at, self.id)
            if block.kind == FOOTER:
                break
            blocks.append(block)
            at = block.end
        for block in sorted(blocks, key=lambda block: block.ordinal):
            need(not self.finished, "a block behind the end of lane 0")
            self.accept(block)
        return at

    def accept(self, block):
        need(block.ordinal == self.ordinal, f"block at {block.offset}: ordinal {block.ordinal}, not {self.ordinal}")
        need(block.kind != FOOTER, "a footer before the end of lane 0")
        need(block.ordinal or (block.kind == OPEN and block.lane == 0), "the first block does not open lane 0")
        if block.kind == OPEN:
            need(block.lane not in self.lanes, f"lane {block.lane} is opened twice")
            lane = self.lanes[block.lane] = self.open_lane(block)
        else:
            need(block.lane in self.lanes, f"lane {block.lane} was not opened")
            lane = self.lanes[block.lane]
        need(block.sequence == len(lane.blocks) < MAX_BLOCKS, f"block at {block.offset}: sequence {block.sequence}, not {len(lane.blocks)}")
        # SEG-6
        rank = RANK.get(block.kind, RANK[DATA])  # unknown kinds stand among the data
        once = block.kind in (PREAMBLE, POSTAMBLE, OPEN, END)
        need(rank >= lane.rank and lane.rank < 5 and (not once or rank > lane.rank or not lane.blocks), f"block at {block.offset}: order of kinds")
        lane.rank = rank
        lane.size += len(block.payload)
        need(lane.size <= MAX_LANE, f"lane {lane.number} has more than 64 GiB")
        payload = self.open_block(lane, block)
        handle = {DATA: self.on_data, COMMIT: self.on_commit, END: self.on_end}.get(block.kind)
        if handle:
            handle(lane, block, payload)
        elif block.kind == PREAMBLE:
            lane.preamble = payload
        elif block.kind == POSTAMBLE:
            lane.postamble = payload
        elif block.kind == SECTION:
            lane.sections.append(payload)
        # SEG-18
        if block.flags & SEALED:
            self.running.update(b"\x01" + block.header + block.tag)
        elif block.kind == OPEN:
            self.running.update(b"\x02" + block.header[:24] + be(8, len(lane.descriptor)) + lane.descriptor + lane.values["commitment"])
        lane.blocks.append(block)
        self.ordinal += 1

    def open_block(self, lane, block):
        # SEG-5
        if not block.flags & SEALED:
            return block.payload
        try:
            return lane.cipher.decrypt(block.nonce, block.payload + block.tag, block.header)
        except InvalidTag:
            raise Damage(f"block at {block.offset}: the tag does not verify") from None

    def open_lane(self, block):
        # SEG-9
        fields = Cursor(block.payload, f"opening of lane {block.lane}")
        length = fields.number(4)
        need(length <= max_descriptor(block.lane), f"{fields.what}: descriptor too long")
        lane = Lane(block.lane, fields.take(length))
        commitment = fields.take(32)
        wrapped = fields.take(fields.number(2))
        if self.header[102] == POST:
            self.check_seal(lane, wrapped, fields.take(fields.number(2)))
        need(crc32c(block.payload[:-4]) == fields.take(4), f"{fields.what}: CRC")
        fields.end()
        parse_descriptor(lane, self.suite)
        if lane.number:
            self.place.check_home(lane.tenant, lane.record_type, self.region)  # SEG-13, second half
        # SEG-12, KEY-14, KEY-15
        owner = parts(b"domicile/v1/wrapped-key", b"\x01", self.fixed, lane.descriptor, commitment)
        data_key = self.unwrap(lane, owner, wrapped)
        # SEG-11
        bound = sha256(parts(b"domicile/v1/lane-descriptor", self.fixed, lane.descriptor))
        info = parts(b"domicile/v1/lane", be(2, lane.suite), be(4, lane.number), bound)
        both = hkdf(data_key, self.id, info, 64)
        need(same(both[32:], commitment), f"lane {lane.number}: the commitment is another")
        lane.cipher = SUITES[lane.suite](both[:32])
        lane.values.update(fixed_header=self.fixed, descriptor=lane.descriptor, wrap_ad=owner, data_key=data_key, salt=self.id, bound=bound,
                           info=info, content_key=both[:32], commitment=commitment)
        return lane

    def check_seal(self, lane, wrapped, seal):
        # SEG-41, SEG-44, SEG-45, KEY-33: who sealed it is between the post and its home, which verified it
        what = f"seal of lane {lane.number}"
        need(wrapped, f"{what}: a post's segment that its home has not adopted")
        fields = Cursor(seal, what)
        need(fields.number(1) == (2 if lane.number else 1), f"{what}: of another kind of lane")
        if lane.number == 0:
            need(fields.number(1) == 1 and fields.number(1) == 1, f"{what}: version or suite of the claim")
            need(re.fullmatch(r"[a-z0-9.-]{1,64}", fields.text()), f"{what}: name of the post")
            fields.take(8)
            need(re.fullmatch(r"\d{4}-\d{2}-\d{2}", fields.text()), f"{what}: day")
            fields.take(64)
        fields.take(64)
        need(lane.number or fields.number(2) == 0, f"{what}: the secret is still there")
        fields.end()

    def unwrap(self, lane, owner, wrapped):
        # KEY-14
        what = f"wrapped key of lane {lane.number}"
        fields = Cursor(wrapped, what)
        need(len(wrapped) == 110 and fields.number(1) == 1 and fields.number(1) == 1, f"{what}: length, version or kind")
        name, leaf_number, region_name, segment_number = fields.take(16), fields.take(8), fields.take(16), fields.take(8)
        nonce, sealed = fields.take(12), fields.take(48)
        # KEY-15
        row, own = self.place.tree(self.region, name)[0], self.place.tree(self.region, region_name)[0]
        need(row.scope()[1:] == lane.scope(), f"{what}: the tenant key is of another scope or period")
        need((own.tenant, own.record_type) == ("_region", "segment"), f"{what}: the second key is not the region's own")
        self.segment_leaf = self.segment_leaf or (region_name, segment_number)
        need((region_name, segment_number) == self.segment_leaf, f"{what}: another segment leaf than lane 0")
        leaf = self.place.leaf(self.region, name, int.from_bytes(leaf_number, "big"))
        segment_leaf = self.place.leaf(self.region, region_name, int.from_bytes(segment_number, "big"))
        inputs = parts(b"domicile/v1/wrapping-key", b"\x01", name, leaf_number, region_name, segment_number)
        key = hkdf(leaf + segment_leaf, None, inputs, 32)
        lane.values.update(tenant_key_name=name, tenant_leaf_number=leaf_number, region_key_name=region_name, segment_leaf_number=segment_number,
                           tenant_leaf=leaf, segment_leaf=segment_leaf, wrapping_key_info=inputs, wrapping_key=key, wrap_nonce=nonce, wrap_sealed=sealed)
        return gcm_open(key, nonce, owner, sealed, what)

    def on_data(self, lane, block, payload):
        data = parse_data(payload, lane, block)
        what = f"data block {block.ordinal}"
        if lane.contents & LONG:
            # SEG-23
            need(len(data.records) == 1 and data.number == 0, f"{what}: a piece of a long record")
            need(bool(block.flags & CONTINUED) == bool(lane.data), f"{what}: continued")
            need(not lane.data or lane.data[-1][1], f"{what}: a piece behind the last")
            need(not lane.data or lane.data[-1][0].arrivals == data.arrivals, f"{what}: arrival number of a piece")
            lane.records = 1
        else:
            need(not block.flags & (CONTINUED | CONTINUES), f"{what}: continued, and no long record")
            need(data.number == lane.records, f"{what}: number of the first record")
            seen = lane.data[-1][0].arrivals[-1:] if lane.data else []  # SEG-24: arrival numbers rise
            rising = seen + data.arrivals
            need(all(a < b for a, b in zip(rising, rising[1:])), f"{what}: arrival numbers do not rise")
            lane.records += len(data.records)
        lane.bytes += sum(map(len, data.records))
        lane.data.append((data, bool(block.flags & CONTINUES)))

    def on_commit(self, lane, block, payload):
        # SEG-17, SEG-18
        what = f"commit block {block.ordinal}"
        fields = Cursor(payload, what)
        durable, digest = fields.number(8), fields.take(32)
        own = fields.number(2)
        need(own <= 256, f"{what}: the caller's own is too long")
        fields.take(own)
        fields.end()
        need(self.durable <= durable <= block.ordinal, f"{what}: durable falls, or lies ahead")
        need(same(digest, self.running.digest()), f"{what}: running hash")
        self.durable = durable
        self.commits.append({"ordinal": block.ordinal, "durable": durable, "running_hash": digest.hex()})

    def on_end(self, lane, block, payload):
        # SEG-14
        what = f"end of lane {lane.number}"
        fields = Cursor(payload, what)
        counts = fields.number(4), fields.number(8), fields.number(8), fields.number(4)
        need(counts == (len(lane.data), lane.records, lane.bytes, len(lane.sections)), f"{what}: totals")
        need(not lane.data or not lane.data[-1][1], f"{what}: a long record without its last piece")
        need(not lane.contents & LONG or lane.data, f"{what}: a long record without pieces")
        sections = {}
        for section in [*lane.sections, fields.take(fields.left())]:
            parse_sections(section, sections, what)
        lane.end_digest = sha256(b"domicile/v1/lane-end", block.header, block.tag)
        if lane.number:
            need(not {2, 3, 4} & set(sections), f"{what}: a section of lane 0")
            self.check_index(lane, sections.get(1, b""), what)
        else:
            need(1 not in sections and 3 in sections, f"{what}: index, or no summary")
            # SEG-43, SEG-51: the post signed the end, unless it had none
            signed = self.header[102] == POST and sections[3][:1] == b"\0"
            need(len(sections.get(4, b"")) == (64 if signed else 0), f"{what}: the post's signature")
            self.check_summary(sections.get(2, b""), sections[3], block)
            self.finished = True

    def check_index(self, lane, contents, what):
        # SEG-15
        fields = Cursor(contents, f"{what}: index")
        rest = [data for data, _ in lane.data]
        number = 0
        while fields.left():
            first, count, first_number, arrival, earliest, latest = (
                fields.number(4), fields.number(4), fields.number(8), fields.signed(8), fields.signed(8), fields.signed(8))
            run, rest = rest[:count], rest[count:]
            need(count and len(run) == count, f"{what}: an index run is empty or goes beyond the data")
            arrivals, times = [a for d in run for a in d.arrivals], [t for d in run for t in d.times]
            expected = run[0].sequence, number, min(arrivals, default=0), min(times), max(times)
            need((first, first_number, arrival, earliest, latest) == expected, f"{what}: index")
            records = 1 if lane.contents & LONG else sum(len(d.records) for d in run)
            need(not rest or records >= 64, f"{what}: an index run of fewer than 64 records")
            number += records
        need(not rest, f"{what}: the index does not cover all data")

    def check_summary(self, directory, summary, block):
        # SEG-15, SEG-16
        others = sorted((lane for lane in self.lanes.values() if lane.number), key=lambda lane: lane.number)
        fields = Cursor(directory, "directory")
        recovered = summary[:1] == b"\x01"
        for lane in others:
            if recovered:  # what a crash cut short is vouched for up to its last block, and counted by nobody
                last = lane.blocks[-1]
                digest = sha256(b"domicile/v1/lane-end", last.header, last.tag) if last.kind != OPEN else bytes(32)
                lane.end_digest, counted = digest, (0, 0)
            else:
                counted = lane.records, lane.bytes
            need(lane.end_digest, f"lane {lane.number} has no end")
            entry = fields.number(4), fields.text(), fields.text(), fields.text(), fields.number(4), fields.number(8), fields.number(8), fields.take(32)
            expected = (lane.number, lane.tenant, lane.record_type, lane.period, len(lane.blocks), *counted, lane.end_digest)
            need(entry == expected, f"directory: lane {lane.number}")
        fields.end()
        fields = Cursor(summary, "summary")
        self.closed = fields.number(1)
        need(self.closed in (0, 1), "summary: how it was closed")
        totals = fields.number(4), fields.number(8), fields.number(8), fields.number(8)
        counted = (0, 0) if recovered else (sum(l.records for l in others), sum(l.bytes for l in others))
        need(totals == (len(others), block.ordinal, *counted), "summary: totals")
        need(same(fields.take(32), self.running.digest()), "summary: running hash")
        fields.end()
        # SEG-20
        last = max((lane.blocks[-1].ordinal for lane in others), default=-1)
        need(recovered or self.commits and self.commits[-1]["ordinal"] > last, "no commit block behind the lanes' ends")

    def verdict(self, at):
        """SEG-19: what damage at this offset makes of the file, after whatever can still be opened behind it."""
        lane = self.lanes.get(0)
        durable = self.durable
        for offset in range(pad8(at + 8), len(self.data), 8) if lane else ():
            if self.data[offset:offset + 4] != b"\xd0BLK":
                continue
            try:
                block = parse_block(self.data, offset, self.id)
                if block.lane == 0 and block.kind in (COMMIT, END):
                    payload = self.open_block(lane, block)
                    if block.kind == END:
                        return "corrupt"
                    durable = max(durable, int.from_bytes(payload[:8], "big"))
            except Refused:
                continue
        return "corrupt" if self.ordinal < durable else "torn"

    # ------------------------------------------------------------ inputs

    def check_inputs(self):
        # SEG-24, SEG-26
        self.inputs = {}
        for lane in sorted(self.lanes.values(), key=lambda lane: lane.number):
            if lane.number:
                self.inputs.setdefault(lane.source, []).append(lane)
        for source, lanes in self.inputs.items():
            need(len({(lane.preamble, lane.postamble) for lane in lanes}) == 1, f"input {source}: preambles or postambles differ")
            need(len({lane.contents & ARRIVALS for lane in lanes}) == 1, f"input {source}: arrival numbers in some lanes only")
            numbers = [a for lane in lanes for data, more in lane.data if not more for a in data.arrivals]
            need(len(numbers) == len(set(numbers)), f"input {source}: an arrival number comes twice")

    def content(self):
        """What went in: for each input preamble, records in order of arrival, postamble."""
        # SEG-10, SEG-24
        for _source, lanes in sorted(self.inputs.items()):
            yield lanes[0].preamble or b""
            records = []
            for lane in lanes:
                for data, _more in lane.data:
                    records += zip(data.arrivals or [0] * len(data.records), data.records)
            records.sort(key=lambda pair: pair[0])  # stable: pieces of one record, and lanes without arrival numbers, stay in order
            yield from (record for _arrival, record in records)
            yield lanes[0].postamble or b""

    # ------------------------------------------------------------ footer

    def build_footer(self):
        # SEG-27
        lanes = sorted(self.lanes.values(), key=lambda lane: (*lane.scope(), lane.number))
        distances, entries, keys = b"", [], []
        for lane in lanes:
            steps = [(b.offset - a.offset) // 8 for a, b in zip(lane.blocks, lane.blocks[1:])]
            key = b"".join(short(text).ljust(1 + width, b"\0") for text, width in zip(lane.scope(), (64, 32, 10))) + be(4, lane.number)
            keys.append(key)
            entries.append(key + be(8, lane.blocks[0].offset) + be(8, lane.blocks[-1].offset) + be(4, len(lane.blocks)) + be(8, len(distances) // 4))
            distances += with_crc(b"".join(be(4, step if step < 1 << 32 else 0) for step in steps))
        distances = distances.ljust(pad8(len(distances)), b"\0")
        pages = b"".join(with_crc(b"".join(entries[i:i + 29]).ljust(4092, b"\0")) for i in range(0, len(entries), 29))
        page_keys = keys[::29]
        groups = [page_keys[i:i + 512] for i in range(0, len(page_keys), 512)]
        key_part = b"".join(with_crc(b"".join(group)) for group in groups)
        tops = with_crc(b"".join(group[0] for group in groups))
        guide = self.build_guide([lanes[i:i + 29] for i in range(0, len(lanes), 29)], 65536 - len(tops) - len(self.header) - 8 - 64)
        guide_at = len(distances + pages + key_part) if guide else 0
        payload = distances + pages + key_part + guide + tops + self.header
        payload = payload.ljust(pad8(BLOCK + len(payload)) - BLOCK, b"\0")
        places = [len(distances), len(distances + pages), len(distances + pages + key_part + guide)]
        spans = sorted((lane.blocks[0].offset, lane.blocks[-1].offset) for lane in lanes if lane.number)
        apart = all(a <= b for a, b in spans) and all(one[1] < next[0] for one, next in zip(spans, spans[1:]))
        trailer = bytes.fromhex("89445345 47454e44") + be(2, 1) + be(2, int(apart)) + be(4, len(lanes)) + be(8, self.end) + b"".join(be(8, p) for p in places) + crc32c(payload) + be(8, guide_at)
        return payload + with_crc(trailer)

    def build_guide(self, pages, room):
        # SEG-50
        def sorted_key(lane):
            return b"".join(text + b"\0" for text in lane.scope()) + be(4, lane.number)

        def shared(a, b):
            return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))

        if len(pages) < 2:
            return b""
        for step in (1, 2, 4, 8):
            guide, before = be(2, step), b""
            for i in range(step, len(pages), step):
                last, first = sorted_key(pages[i - 1][-1]), sorted_key(pages[i][0])
                separator = first[:shared(last, first) + 1]
                common = shared(before, separator)
                guide += be(1, common) + be(1, len(separator) - common) + separator[common:]
                before = separator
            if len(guide) + 4 <= room:
                return with_crc(guide)
        return b""

    def check_footer(self):
        need(self.end < len(self.data), "no footer")  # a file does without one; a complete one that our writer made has it
        block = parse_block(self.data, self.end, self.id)
        need(block.kind == FOOTER and block.end == len(self.data), "the footer is not the last block, or something else follows lane 0's end")
        need(block.sequence == 0 and block.ordinal == self.ordinal and block.header[5:7] == b"\0\0", "footer: sequence, ordinal or flags")
        need(block.payload == self.build_footer(), "the footer is another than the blocks make")

# ---------------------------------------------------------------- commands

def check(place, data):
    """All checks of one segment; returns the report. (The store is checked apart: `place.check_store`.)"""
    segment = Segment(place, data)
    segment.check_footer()
    lanes = [{"lane": l.number, "tenant": l.tenant, "type": l.record_type, "period": l.period, "records": l.records, "bytes": l.bytes}
             for l in sorted(segment.lanes.values(), key=lambda lane: lane.number) if l.number]
    return {"segment": segment.id.hex(), "region": segment.region.name, "closed": ["by its writer", "after a crash"][segment.closed],
            "lanes": lanes, "blocks": segment.ordinal + 1}

def values(place, data):
    segment = Segment(place, data)
    lanes = [{"lane": lane.number, **{name: value.hex() for name, value in lane.values.items()}} for lane in segment.lanes.values()]
    return {"segment": segment.id.hex(), "lanes": lanes, "commits": segment.commits, "final_running_hash": segment.running.hexdigest()}

def main(arguments):
    try:
        need(len(arguments) == 3 and arguments[0] in ("open", "check", "values"), "usage: reader.py open|check|values PLACE FILE")
        command, where, path = arguments
        place = Place(where)
        with open(path, "rb") as file:
            data = file.read()
        if command == "open":
            for piece in Segment(place, data).content():
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        elif command == "check":
            report = check(place, data)
            place.check_signing_key(place.regions[report["region"]])
            place.check_store()
            print(json.dumps(report))
        else:
            print(json.dumps(values(place, data), indent=1))
        return 0
    except Exception as error:  # never a traceback
        text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        print("refused: " + " ".join(text.split()), file=sys.stderr)
        return 1

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
