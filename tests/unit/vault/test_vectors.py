"""Test vectors of docs/vault-format.md: fixed keys and salts give fixed bytes, forever.

What reads them here is written from the document with primitives only, so that the document is enough to write another
reader. If one of these fails, the format has changed: raise its version, or undo the change.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from datetime import UTC, datetime

import numpy as np
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from farshore_engine.blocks.content import digest_block
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.vault.crypto import MachineKeys, Place, Purpose, kek_id
from farshore_engine.vault.encoder import Encoder
from farshore_engine.vault.encoding import BLOCK_REF, REF, refs_from_bytes
from farshore_engine.vault.keydocument import Erasure, KeyDocument, Wrap
from farshore_engine.vault.keyring import KeyRing, LocalKey, binding, unwrap
from farshore_engine.vault.names import MachineNames, PackId
from farshore_engine.vault.node import Node, node_of
from farshore_engine.vault.pack import OpenPack
from farshore_engine.vault.records import FenceBody, RecordKind, open_record
from farshore_engine.vault.reports import SignedReport

KEK = bytes(range(32))
DATA_KEY = bytes(range(32, 64))
SALT = bytes(range(64, 96))
MACHINE = "team-a.db"
KEYS = MachineKeys(MACHINE, DATA_KEY)

KEY_JSON = b"""{
 "format": 1,
 "machine": "team-a.db",
 "wraps": [
  {
   "kek": "84cb9ae1d9bf224e",
   "algorithm": "A256GCM",
   "nonce": "AAECAwQFBgcICQoL",
   "wrapped": "ZyP0OOHA5DylaL2gncRWQrPntQfETmlLAF7fviFUPo1XtpfTH65qCaNo6ygPWPsx"
  }
 ]
}"""
ERASED_JSON = b"""{
 "format": 1,
 "machine": "team-a.db",
 "wraps": [],
 "erased": {
  "time": "2025-01-02T03:04:05+00:00",
  "by": "ada",
  "reason": "contract ended"
 }
}"""
KEY_ID = "https://contoso.vault.azure.net/keys/farshore/0123456789abcdef0123456789abcdef"
KEY_VAULT_SEAL = "2ca6e33bd72eb034c0c2bb90bcdca56d3565885de9bfa7e6fd3b681da01c1d19"
PACK_KEY = "b3f91335173dce273c862684eaf94976e81005890704d65abd2f6ff149e73843"
CHAIN_KEY = "a06bce7b8c7ba97f99a075f2f619244f0380cac68bfe63ca71cb395c115aa133"
JOURNAL_KEY = "f1d575e936b137eea971dc19585744fdb07f8bcbd446a6b59c618e06f7c3d53b"
REPORT_KEY = "7854c8cc3d14ebf94d18642bfc92f1f26df9de8a1a8810e84049435e1effa90c"
REPORT_SIGNATURE_KEY = "c2834530fea04acc8e1aca13bfb4a72eadf0cdcc7ed547743b31b52d86a1956a"
REPORT_SIGNATURE = "f4b7cf17c5066ab0e0cf91bc96c3c178953dd9ea2f653b3a83e1b32bd3c37610"
DIGEST_KEY = "c1b866362da7bf9f985f2f4b0fec2eb09657b5e81d36aaa278669cb55cba2ae9"
BLOCK_PLACE = "4653423100097465616d2d612e646200037364610000000000000102"  # block 258 of sda
NODE_PLACE = "46534e3100097465616d2d612e64620003736461010000000000000002"  # node 2 of level 1 of sda
ONES_DIGEST = "84e280b288a68e5fa306e769012c506f83a075b999f0679f6fc0e7797de2fabf"
RECORD = bytes.fromhex(
    "4653524543763031000000f67b22636c61696d223a352c2265706f6368223a332c22666f726d6174223a312c226b696e64223a2266656e63"
    "65222c226d616368696e65223a227465616d2d612e6462222c2270726576696f7573223a2230303030303030303030303030303030303030"
    "303030303030303030303030303030303030303030303030303030303030303030303030303030303030303030222c2273616c74223a2234"
    "3034313432343334343435343634373438343934613462346334643465346635303531353235333534353535363537353835393561356235"
    "63356435653566222c22736c6f74223a372c22777269746572223a2270732d31227d87383d5e7723708e8bc98b1675b624c999208f20e6ae"
    "5bf432ad617454f8465ab0f41cb959283448ce2fb482511101fba0f300aa923774007d4e4c85116c69c3ae5f889a2bba08fd934a"
)
NODE = bytes.fromhex(
    "46534e31000002000200000000000000000000000000000000000000000000000001000000000000"
    "05000000000000000500000000000000"
    "88776655443322118877665544332211"
    "280000008c000000"
    "6400000010000100"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
)
PACK_HEADER = "46535041434b7631" + SALT.hex()
PACK_FIRST_BYTES = "5d5ca6d383e0465dacb4ab32c0b4e908d320b98ec63e65d1702b9b1489fd9a49"
PACK_HASH = "e6e3b902693249e035895b7d6847feb8038685ac610c434270c9f4edf08c8190"


def hkdf(salt: bytes, info: str) -> bytes:
    """HKDF-SHA256 of RFC 5869 for 32 bytes, by hand."""
    extracted = hmac.digest(salt or bytes(32), DATA_KEY, hashlib.sha256)
    return hmac.digest(extracted, info.encode() + b"\x01", hashlib.sha256)


def incompressible() -> bytes:
    """64 KiB from SHA-256 of a counter."""
    return b"".join(hashlib.sha256(struct.pack(">I", n)).digest() for n in range(BLOCK_SIZE // 32))


def test_the_key_document() -> None:
    assert kek_id(KEK) == "84cb9ae1d9bf224e"
    assert kek_id(KEK) == blake3(KEK, derive_key_context="farshore.dev 2025 key-encryption key id").hexdigest()[:16]
    wrap = LocalKey(KEK).wrap(DATA_KEY, MACHINE, bytes(range(12)))
    assert KeyDocument(MACHINE, (wrap,)).encode() == KEY_JSON
    fields = json.loads(KEY_JSON)["wraps"][0]
    nonce, wrapped = base64.b64decode(fields["nonce"]), base64.b64decode(fields["wrapped"])
    assert AESGCM(KEK).decrypt(nonce, wrapped, b"farshore/1 data key\0team-a.db") == DATA_KEY
    assert unwrap(KeyDocument.decode(KEY_JSON, MACHINE), KeyRing(LocalKey(KEK))) == KEYS


def test_the_plain_text_of_a_wrap_in_key_vault() -> None:
    assert hashlib.sha256(binding(MACHINE)).hexdigest() == KEY_VAULT_SEAL
    wrapped = base64.b64encode(bytes(256)).decode()
    text = json.dumps(
        {"format": 1, "machine": MACHINE, "wraps": [{"kek": KEY_ID, "algorithm": "RSA-OAEP-256", "wrapped": wrapped}]},
        indent=1,
    )
    document = KeyDocument(MACHINE, (Wrap(KEY_ID, "RSA-OAEP-256", bytes(256)),))
    assert document.encode() == text.encode()
    assert KeyDocument.decode(text.encode(), MACHINE) == document


def test_an_erased_key_document() -> None:
    document = KeyDocument.decode(ERASED_JSON, MACHINE)
    assert document.encode() == ERASED_JSON
    assert document.erased == Erasure(datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), "ada", "contract ended")


def test_derived_keys() -> None:
    for purpose, expected in (
        (Purpose.PACK, PACK_KEY),
        (Purpose.CHAIN, CHAIN_KEY),
        (Purpose.JOURNAL, JOURNAL_KEY),
        (Purpose.REPORT, REPORT_KEY),
        (Purpose.REPORT_SIGNATURE, REPORT_SIGNATURE_KEY),
    ):
        assert KEYS.derive(purpose, SALT).hex() == expected == hkdf(SALT, purpose.value).hex()
    assert KEYS.digest_key.hex() == DIGEST_KEY == hkdf(b"", "farshore/1 block digest").hex()


def test_places_and_digests() -> None:
    assert Place(MACHINE, "sda").block(258).hex() == BLOCK_PLACE
    assert Place(MACHINE, "sda").node(1, 2).hex() == NODE_PLACE
    assert digest_block(KEYS.digest_key, b"\x01" * BLOCK_SIZE).hex() == ONES_DIGEST


def test_a_record() -> None:
    record = open_record(KEYS, 7, RECORD)
    assert (record.header.kind, record.header.epoch, record.header.writer) == (RecordKind.FENCE, 3, "ps-1")
    assert isinstance(record.body, FenceBody)
    assert record.body.reason == "opened"
    length = int.from_bytes(RECORD[8:12], "big")
    header = json.loads(RECORD[12 : 12 + length])
    key = hkdf(bytes.fromhex(header["salt"]), "farshore/1 chain record")
    body = AESGCM(key).decrypt(bytes(12), RECORD[12 + length :], RECORD[: 12 + length])
    assert json.loads(zstandard.decompress(body)) == {"reason": "opened", "time": "2025-01-02T03:04:05Z"}
    assert record.digest == blake3(RECORD).hexdigest()


def test_a_signed_report() -> None:
    signed = SignedReport.sign(KEYS, "drill-1", 3, '{"result":"Succeeded"}', "<p>ü</p>", SALT)
    assert signed.signature.hex() == REPORT_SIGNATURE
    fields = json.loads(signed.encode())
    key = hkdf(bytes.fromhex(fields["signature"]["salt"]), "farshore/1 report signature")
    parts = (fields["machine"], fields["run"], str(fields["number"]), fields["report"], fields["page"])
    text = b"farshore/1 report\0" + b"".join(blake3(part.encode()).digest() for part in parts)
    assert blake3(text, key=key).hexdigest() == fields["signature"]["value"] == REPORT_SIGNATURE
    assert SignedReport.decode(signed.encode()) == signed


def test_a_node() -> None:
    refs = np.zeros(256, REF)
    refs[1] = (5, 0x1122334455667788, 40, 100, np.arange(32))
    refs[200] = (5, 0x1122334455667788, 140, 65552, np.arange(32, 64))
    assert node_of(0, refs).encode() == NODE
    assert Node.decode(NODE, 0).entries.tobytes() == refs.tobytes()


def test_a_pack() -> None:
    pack = OpenPack(PackId(5, 1), KEYS, SALT)
    block = incompressible()
    length = Encoder._encrypt(pack, pack.end, block, bytes.fromhex(BLOCK_PLACE))
    data = bytes(pack.buffer[: 40 + length])
    assert data[:40].hex() == PACK_HEADER
    assert data[40:72].hex() == PACK_FIRST_BYTES
    assert blake3(data).hexdigest() == PACK_HASH
    nonce = (40).to_bytes(12, "big")
    assert AESGCM(bytes.fromhex(PACK_KEY)).decrypt(nonce, data[40:], bytes.fromhex(BLOCK_PLACE)) == block


def test_a_journalled_reference() -> None:
    """The spool of a process server keeps these over restarts and upgrades."""
    assert BLOCK_REF.itemsize == 64
    data = struct.pack("<QQQII", 258, 5, 0x1122334455667788, 40, 65552) + bytes(range(32))
    ref = refs_from_bytes(data)[0]
    assert (int(ref["index"]), int(ref["ref"]["claim"]), int(ref["ref"]["offset"])) == (258, 5, 40)
    assert ref.tobytes() == data


def test_names() -> None:
    names = MachineNames(MACHINE, "eu/")
    assert names.slot(7) == "eu/machines/team-a.db/chain/000000000007"
    assert names.pack(PackId(5, 0x1122334455667788)) == "eu/machines/team-a.db/packs/000000000005-1122334455667788"
    assert names.pin(7, "run-1") == "eu/machines/team-a.db/pins/000000000007/run-1"
    assert names.report("run-1", 3) == "eu/machines/team-a.db/reports/run-1/000003"
    assert names.journal("run-1", 3) == "eu/machines/team-a.db/journal/run-1/000003"
