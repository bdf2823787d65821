"""Signed bundles: an ed25519 signature of the manifest, which pins every file by its SHA-256.

A signature says who exported a bundle; checksums alone say that nothing broke on the way. The
signature is ``manifest.sig``, the 64 raw bytes, and keys are PEM files without a password, so that
``openssl pkeyutl`` reads both. Knows neither whom to trust nor how keys travel.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rirf.bundle import MANIFEST, SIGNATURE, Bundle
from rirf.errors import BundleError, OutputError, require
from rirf.files import write_atomic

__all__ = ["check_signature", "generate_keys", "sign_bundle"]

_LENGTH = 64
_MAKE = "make a pair with: rirf bundle keygen"


def _cryptography(module: str) -> Any:
    purpose = "sign bundles and to check signatures"
    return require(f"cryptography.{module}", "signing", purpose)


def _ed25519() -> Any:
    return _cryptography("hazmat.primitives.asymmetric.ed25519")


def _serialization() -> Any:
    return _cryptography("hazmat.primitives.serialization")


def generate_keys(private: str | Path) -> Path:
    """Make a pair of keys: the private one in a file only its owner reads, the public one beside.

    Args:
        private: the new file of the private key.

    Returns:
        The file of the public key, ``private`` with ``.pub`` appended.

    Raises:
        OutputError: one of the files exists, or cannot be written.
        MissingExtraError: cryptography is not installed.
    """
    private = Path(private)
    public = private.with_name(private.name + ".pub")
    forms, key = _serialization(), _ed25519().Ed25519PrivateKey.generate()
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    open_part = key.public_key().public_bytes(
        forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo
    )
    for path in (private, public):
        if path.exists():
            raise OutputError(f"{path} exists; a key is never replaced, choose another name")
    # The public key first: should the other fail, what stays behind is no secret.
    write_atomic(public, open_part)
    try:
        # Never readable by others, not even for the moment between writing and a chmod.
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    except OSError as error:
        raise OutputError(
            f"{private}: cannot be written: {error.strerror or error}; choose a folder that exists "
            "and is writable"
        ) from error
    return public


def _read_key(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); expected the file of a {kind} "
            f"key, {_MAKE}"
        ) from error


def _load_key(path: Path, kind: str) -> Any:
    """The ed25519 key of a PEM file; ``kind`` is private or public."""
    content = _read_key(path, kind)
    forms = _serialization()
    try:
        if kind == "private":
            key = forms.load_pem_private_key(content, password=None)
        else:
            key = forms.load_pem_public_key(content)
    except TypeError as error:
        raise BundleError(
            f"{path}: the private key is locked by a password; expected one without: "
            "openssl pkey -in LOCKED -out KEY"
        ) from error
    except (ValueError, _cryptography("exceptions").UnsupportedAlgorithm) as error:
        raise BundleError(
            f"{path}: not a {kind} key in PEM form; expected the {kind} half of an ed25519 pair, "
            f"{_MAKE}"
        ) from error
    expected = getattr(_ed25519(), f"Ed25519{kind.capitalize()}Key")
    if not isinstance(key, expected):
        raise BundleError(
            f"{path}: a {kind} key of the type {type(key).__name__}; expected ed25519, {_MAKE}"
        )
    return key


def sign_bundle(folder: str | Path, private_key_file: str | Path) -> Path:
    """Sign a whole, unaltered bundle; an earlier signature is replaced.

    Args:
        folder: the ``.rirf`` folder.
        private_key_file: see :func:`generate_keys`.

    Returns:
        The signature's file.

    Raises:
        BundleError: the bundle does not verify, or the key is not a private ed25519 key.
        OutputError: the signature cannot be written.
        MissingExtraError: cryptography is not installed.
    """
    key = _load_key(Path(private_key_file), "private")
    bundle = Bundle.open(folder)
    file = bundle.folder / SIGNATURE
    write_atomic(file, key.sign((bundle.folder / MANIFEST).read_bytes()))
    return file


def check_signature(folder: Path, manifest: bytes, trusted: str | Path) -> None:
    """Check that a bundle's signature is of this manifest and by the owner of a public key.

    Args:
        folder: the ``.rirf`` folder.
        manifest: the bytes of its manifest.
        trusted: file of the public key.

    Raises:
        BundleError: there is no signature, it does not fit, or the key is not a public ed25519 key.
        MissingExtraError: cryptography is not installed.
    """
    key = _load_key(Path(trusted), "public")
    path = folder / SIGNATURE
    try:
        signature = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder}: has no {SIGNATURE}, expected one by the owner of {trusted}; get the signed "
            "bundle, or sign it with: rirf bundle sign"
        ) from error
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); copy the bundle again"
        ) from error
    if len(signature) != _LENGTH:
        raise BundleError(
            f"{path}: {len(signature)} bytes, an ed25519 signature has {_LENGTH}; copy the bundle "
            "again"
        )
    try:
        key.verify(signature, manifest)
    except _cryptography("exceptions").InvalidSignature as error:
        raise BundleError(
            f"{path}: no signature of this manifest by the owner of {trusted}: the manifest was "
            "altered after signing, or another key signed it; get the bundle again from its maker, "
            "or give the right key"
        ) from error
