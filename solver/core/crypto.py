"""Keccak and secp256k1 behind one door: safe-pysha3 and coincurve (both compiled).

eth-account appears only in tests, as the oracle.
"""

from __future__ import annotations

import sha3
from coincurve import PrivateKey, PublicKey

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_SIGNATURE_LENGTH = 65


class SignatureError(ValueError):
    """A signature that no honest wallet makes: wrong length, high s, bad v, not on the curve."""


def keccak(data: bytes) -> bytes:
    """Keccak-256, 32 bytes."""
    digest: bytes = sha3.keccak_256(data).digest()
    return digest


def address_of(public_key: PublicKey) -> str:
    """The lower-case address of a public key."""
    return "0x" + keccak(public_key.format(compressed=False)[1:])[12:].hex()


def address_from_key(private_key: bytes) -> str:
    """The lower-case address of a private key (32 bytes)."""
    return address_of(PrivateKey(private_key).public_key)


def recover(digest: bytes, signature: bytes) -> str:
    """The address that signed a 32-byte digest with r ‖ s ‖ v, v in {27, 28}.

    Raises SignatureError for anything that OpenZeppelin's ECDSA refuses as well.
    """
    if len(signature) != _SIGNATURE_LENGTH:
        raise SignatureError(f"a signature has 65 bytes, this one has {len(signature)}")
    if signature[64] not in (27, 28):
        raise SignatureError("v must be 27 or 28")
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        raise SignatureError("s is in the upper half of the order (malleable)")
    compact = signature[:64] + bytes([signature[64] - 27])
    try:
        return address_of(PublicKey.from_signature_and_message(compact, digest, hasher=None))
    except Exception as error:  # coincurve raises bare Exception and ValueError
        raise SignatureError("no public key fits this signature") from error


def sign(digest: bytes, private_key: bytes) -> bytes:
    """Sign a 32-byte digest; r ‖ s ‖ v with low s and v in {27, 28}."""
    compact = PrivateKey(private_key).sign_recoverable(digest, hasher=None)
    return compact[:64] + bytes([compact[64] + 27])


def word(value: int | str | bytes) -> bytes:
    """One ABI word: an integer big-endian, or hex/bytes left-padded to 32 bytes."""
    if isinstance(value, int):
        return value.to_bytes(32, "big")
    raw = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else value
    return raw.rjust(32, b"\0")


def domain_separator(name: str, version: str, chain: int, contract: str) -> bytes:
    """The EIP-712 domain separator."""
    type_hash = keccak(
        b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    )
    parts = (
        type_hash,
        keccak(name.encode()),
        keccak(version.encode()),
        word(chain),
        word(contract),
    )
    return keccak(b"".join(parts))


def typed_digest(separator: bytes, struct_hash: bytes) -> bytes:
    """keccak(0x1901 ‖ domain ‖ struct)."""
    return keccak(b"\x19\x01" + separator + struct_hash)
