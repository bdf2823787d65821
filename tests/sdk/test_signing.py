"""Keys and signatures: what is trusted, and everything that must not be."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import rirf
from rirf.bundle import MANIFEST, SIGNATURE, Bundle
from rirf.errors import BundleError, OutputError
from rirf.signing import generate_keys, sign_bundle


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and a public key file."""
    private = tmp_path_factory.mktemp("keys") / "maker.key"
    return private, generate_keys(private)


@pytest.fixture
def signed(shipped: Path, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    """A signed copy of the shipped bundle."""
    folder = Path(shutil.copytree(shipped, tmp_path / "signed.rirf"))
    sign_bundle(folder, keys[0])
    return folder


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def refuses(folder: Path, trusted: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Bundle.open(folder, trusted=trusted)


def test_a_pipeline_is_loaded_from_whom_it_trusts(
    signed: Path, shipped: Path, keys: tuple[Path, Path]
) -> None:
    with rirf.load(signed, threads=1, trusted=keys[1]) as pipeline:
        assert pipeline.bundle.folder == signed
    with pytest.raises(BundleError, match=r"has no manifest\.sig, expected one by the owner"):
        rirf.load(shipped, threads=1, trusted=keys[1])


def test_a_signed_bundle_is_trusted(signed: Path, keys: tuple[Path, Path]) -> None:
    assert Bundle.open(signed, trusted=keys[1]).folder == signed
    assert Bundle.open(str(signed), trusted=str(keys[1])).folder == signed
    assert Bundle.open(signed).folder == signed  # the signature is no unlisted file
    assert len((signed / SIGNATURE).read_bytes()) == 64


def test_the_signature_is_plain_ed25519(signed: Path, keys: tuple[Path, Path]) -> None:
    key = serialization.load_pem_public_key(keys[1].read_bytes())
    assert isinstance(key, ed25519.Ed25519PublicKey)
    key.verify((signed / SIGNATURE).read_bytes(), (signed / MANIFEST).read_bytes())


def test_signing_again_replaces_the_signature(signed: Path, tmp_path: Path) -> None:
    before = (signed / SIGNATURE).read_bytes()
    other = generate_keys(tmp_path / "other.key")
    sign_bundle(signed, tmp_path / "other.key")
    assert (signed / SIGNATURE).read_bytes() != before
    Bundle.open(signed, trusted=other)


def test_only_the_owner_reads_the_private_key(keys: tuple[Path, Path]) -> None:
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    assert keys[1].name == "maker.key.pub"
    assert b"PRIVATE" not in keys[1].read_bytes()


def test_keys_are_never_replaced(keys: tuple[Path, Path], tmp_path: Path) -> None:
    before = [key.read_bytes() for key in keys]
    with pytest.raises(OutputError, match="exists; a key is never replaced"):
        generate_keys(keys[0])
    assert [key.read_bytes() for key in keys] == before
    (tmp_path / "new.key.pub").write_bytes(b"somebody's")
    with pytest.raises(OutputError, match=r"new\.key\.pub exists"):
        generate_keys(tmp_path / "new.key")
    assert not (tmp_path / "new.key").exists()


def test_keys_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose a folder that exists"):
        generate_keys(tmp_path / "none" / "maker.key")


def test_a_missing_signature(shipped: Path, keys: tuple[Path, Path]) -> None:
    refuses(shipped, keys[1], r"has no manifest\.sig, expected one by the owner of .*maker\.key")


def test_an_altered_manifest(signed: Path, keys: tuple[Path, Path]) -> None:
    path = signed / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["policy"]["bypass_below"] = 0.5
    path.write_text(json.dumps(manifest))
    Bundle.open(signed)  # whole, so nobody notices without the key
    refuses(signed, keys[1], "altered after signing, or another key signed it")


def test_the_signature_comes_before_everything_in_the_manifest(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    (signed / MANIFEST).write_bytes(b'{"schema_version": 2}')
    refuses(signed, keys[1], "altered after signing")


def test_an_altered_file(signed: Path, keys: tuple[Path, Path]) -> None:
    with (signed / "MODEL_CARD.md").open("a") as card:
        card.write("Fit for every use.\n")
    refuses(signed, keys[1], r"MODEL_CARD\.md: SHA-256")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md: SHA-256"):
        Bundle.open(signed, verify=False, trusted=keys[1])


def test_another_makers_key(signed: Path, tmp_path: Path) -> None:
    other = generate_keys(tmp_path / "other.key")
    refuses(signed, other, r"no signature of this manifest by the owner of .*other\.key\.pub")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length(signed: Path, keys: tuple[Path, Path], length: int) -> None:
    (signed / SIGNATURE).write_bytes(bytes(length))
    refuses(signed, keys[1], f"{length} bytes, an ed25519 signature has 64")


def test_one_flipped_bit_of_the_signature(signed: Path, keys: tuple[Path, Path]) -> None:
    data = bytearray((signed / SIGNATURE).read_bytes())
    data[10] ^= 1
    (signed / SIGNATURE).write_bytes(data)
    refuses(signed, keys[1], "no signature of this manifest")


def test_a_signature_that_cannot_be_read(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / SIGNATURE).unlink()
    (signed / SIGNATURE).mkdir()
    refuses(signed, keys[1], r"manifest\.sig: cannot be read .*copy the bundle again")


@pytest.mark.parametrize("half", [0, 1])
def test_the_wrong_half_of_the_pair(signed: Path, keys: tuple[Path, Path], half: int) -> None:
    with pytest.raises(BundleError, match=r"expected the (private|public) half of an ed25519 pair"):
        if half == 0:
            Bundle.open(signed, trusted=keys[0])
        else:
            sign_bundle(signed, keys[1])


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_keys_of_another_type(signed: Path, tmp_path: Path, kind: str) -> None:
    key = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if kind == "rsa"
        else ec.generate_private_key(ec.SECP256R1())
    )
    private, public = tmp_path / "key", tmp_path / "key.pub"
    private.write_bytes(private_pem(key))
    public.write_bytes(public_pem(key))
    refuses(signed, public, "a public key of the type .*; expected ed25519, make a pair with")
    with pytest.raises(BundleError, match=r"a private key of the type .*; expected ed25519"):
        sign_bundle(signed, private)


def test_a_locked_private_key(signed: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(BundleError, match="locked by a password; expected one without: openssl"):
        sign_bundle(signed, locked)


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_a_file_that_is_no_key(signed: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    refuses(signed, file, "not a public key in PEM form")
    with pytest.raises(BundleError, match="not a private key in PEM form"):
        sign_bundle(signed, file)


def test_a_key_that_cannot_be_read(signed: Path, tmp_path: Path) -> None:
    refuses(signed, tmp_path / "none.pub", r"none\.pub: cannot be read \(No such file")
    refuses(signed, tmp_path, r"cannot be read \(Is a directory\); expected the file of a public")
    with pytest.raises(BundleError, match="expected the file of a private key"):
        sign_bundle(signed, tmp_path / "none.key")


def test_a_damaged_bundle_is_not_signed(
    shipped: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shipped, tmp_path / "copy.rirf"))
    (folder / "MODEL_CARD.md").unlink()
    with pytest.raises(BundleError, match=r"missing MODEL_CARD\.md"):
        sign_bundle(folder, keys[0])
    assert not (folder / SIGNATURE).exists()


def test_the_missing_extra_is_named(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('not here')\n")
    code = (
        "import sys; from rirf import Bundle, MissingExtraError\n"
        "Bundle.open(sys.argv[1])\n"
        "try: Bundle.open(sys.argv[1], trusted=sys.argv[2])\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(signed), str(keys[1])],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'rirf[signing]'" in done.stdout
