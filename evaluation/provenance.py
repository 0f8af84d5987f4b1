"""Content credentials (C2PA): a video says, under a signature, that it is generated, by what, and from what.

certificates and private key, PEM files -> Credentials: fit, are valid, and have signed something once
finished .mp4 -> the same pictures and sound, with a manifest of
    c2pa.actions           created, by this version, as media of a trained algorithm
    c2pa.ingredient        image and sound, as inputs; with their own credentials where they have some
    org.hallo3.generation  all that the container's comment says: digests, settings, seed, prompt

Nothing is asked of a network: no time stamps, no revocation lists, no manifests that lie elsewhere. Of the
inputs the manifest keeps digests, no pictures.
"""

import io
import mimetypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import c2pa
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
GENERATION = "org.hallo3.generation"
SETTINGS: dict[str, Any] = {
    "version": 1,
    # Hashed in pieces and copied over the disk, so that a longer video takes no more memory.
    "core": {
        "merkle_tree_chunk_size_in_kb": 1024,
        "merkle_tree_max_proofs": 0,
        "backing_store_memory_threshold_in_mb": 16,
    },
    "builder": {
        "thumbnail": {"enabled": False},
        # Stated by us, not gathered from elsewhere.
        "created_assertion_labels": ["c2pa.actions", "c2pa.ingredient", GENERATION],
    },
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
ANY_BYTES = "application/octet-stream"
SMALLEST_PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'
"""Signed to see whether credentials are accepted."""
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
PROFILE = (
    "C2PA takes certificates of X.509 v3 that an authority has issued (not self-signed), with the key usage "
    "digitalSignature and the extended one emailProtection or documentSigning"
)


class CredentialsError(ValueError):
    """A certificate or key cannot be used, or the library for them is missing; the message says which."""


@dataclass(frozen=True)
class Credentials:
    """Who signs, and with what. `read` makes them."""

    certificates: bytes
    """PEM: the signer's, then those that vouch for it."""
    key: bytes = field(repr=False)
    """PEM, PKCS #8, not encrypted."""
    algorithm: str
    """ES256, ES384, ES512, PS256 or Ed25519, as the key is, in small letters."""
    signer: str
    """As the certificate names it."""

    @classmethod
    def read(cls, certificates: Path, key: Path) -> Self:
        """From PEM files, looked at and tried.

        Args:
            certificates: the signer's first, then those that vouch for it, up to but without the root.
            key: of the first certificate, without a passphrase.

        Raises:
            CredentialsError: names the file and what is wrong with it; never the key's content.
        """
        try:
            import c2pa  # noqa: F401
            from cryptography.hazmat.primitives import serialization
        except ModuleNotFoundError as error:
            raise CredentialsError(
                f"credentials need {error.name}; pip install 'hallo3[provenance]'"
            ) from None

        chain, private = _certificates(certificates), _private_key(key)
        _check_fit(chain, certificates, private, key)
        _check_time(chain[0], certificates)
        pem = serialization.Encoding.PEM
        read = cls(
            b"".join(each.public_bytes(pem) for each in chain),
            private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            _algorithm(private, key),
            _name(chain[0]),
        )
        try:
            trial = io.BytesIO(SMALLEST_PICTURE), io.BytesIO()
            read._sign("image/svg+xml", *trial, _manifest("trial", {}, {}), {})
        except CredentialsError as error:
            raise CredentialsError(f"{certificates}: cannot sign: {error}; {PROFILE}") from None
        return read

    def sign(
        self, video: Path, signed: Path, title: str, about: Mapping[str, Any], inputs: Mapping[str, Path]
    ) -> None:
        """Write `video`, an .mp4, with its credentials to `signed`.

        Args:
            about: what it is made of, for programs.
            inputs: the files among that, by what they are.

        Raises:
            CredentialsError: the signature is refused, as of a certificate that has expired meanwhile.
            OSError: a file cannot be read or written.
        """
        with video.open("rb") as source, signed.open("w+b") as target:
            self._sign("video/mp4", source, target, _manifest(title, about, inputs), inputs)

    def _sign(
        self,
        mime: str,
        source: IO[bytes],
        target: IO[bytes],
        manifest: dict[str, Any],
        inputs: Mapping[str, Path],
    ) -> None:
        """Raises CredentialsError."""
        import c2pa

        try:
            with c2pa.Context.from_dict(SETTINGS) as context, c2pa.Builder(manifest, context) as builder:
                for name, path in inputs.items():
                    _add_input(builder, name, path)
                info = c2pa.C2paSignerInfo(self.algorithm, self.certificates, self.key, None)
                with c2pa.Signer.from_info(info) as signer:
                    builder.sign(signer, mime, source, target)
        except c2pa.C2paError as error:
            raise CredentialsError(str(error)) from None


def _manifest(title: str, about: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
    agent = {"name": "hallo3", "version": version("hallo3")}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": GENERATED,
        "softwareAgent": agent,
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "parameters": {"ingredientIds": list(inputs)},
    }
    return {
        "title": title,
        "claim_generator_info": [agent],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
            {"label": GENERATION, "data": dict(about)},
        ],
    }


def _add_input(builder: "c2pa.Builder", name: str, path: Path) -> None:
    """A file that the video is made of; if it has credentials, with them."""
    import c2pa

    about = {"title": name, "relationship": "inputTo", "instance_id": name, "label": name}
    with path.open("rb") as file:
        try:
            builder.add_ingredient(about, mimetypes.guess_type(path)[0] or ANY_BYTES, file)
        except c2pa.C2paError:  # the library does not know every file that Pillow and FFmpeg open
            file.seek(0)
            builder.add_ingredient(about, ANY_BYTES, file)


def _certificates(path: Path) -> "list[x509.Certificate]":
    from cryptography import x509

    content = _content(path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise CredentialsError(
            f"{path}: no certificates in PEM form; it begins with -----BEGIN CERTIFICATE-----"
        ) from None


def _private_key(path: Path) -> "PrivateKeyTypes":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _content(path)
    try:
        return load_pem_private_key(content, password=None)
    except TypeError:  # so it says that a passphrase is missing
        raise CredentialsError(
            f"{path}: is protected by a passphrase; take it off: openssl pkcs8 -topk8 -nocrypt -in {path}"
        ) from None
    except (ValueError, UnsupportedAlgorithm):  # without the library's words, which quote what it found
        raise CredentialsError(
            f"{path}: no private key in PEM form; it begins with -----BEGIN PRIVATE KEY-----"
        ) from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from None


def _check_fit(chain: "list[x509.Certificate]", at: Path, private: "PrivateKeyTypes", key: Path) -> None:
    ours = private.public_key()
    place = next((n for n, each in enumerate(chain, 1) if each.public_key() == ours), None)
    if place is None:
        raise CredentialsError(f"{key}: does not fit {at}, which is of {_name(chain[0])}; give the key of it")
    if place > 1:
        raise CredentialsError(f"{at}: the key's certificate is number {place} in it; put it first")


def _check_time(certificate: "x509.Certificate", at: Path) -> None:
    now, end = datetime.now(UTC), certificate.not_valid_after_utc
    if now > end:
        raise CredentialsError(f"{at}: {_name(certificate)} has expired on {end:%Y-%m-%d}; give a valid one")
    if now < certificate.not_valid_before_utc:
        begin = certificate.not_valid_before_utc
        raise CredentialsError(f"{at}: {_name(certificate)} is valid from {begin:%Y-%m-%d %H:%M} UTC on only")


def _algorithm(private: "PrivateKeyTypes", at: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES:
        return CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise CredentialsError(
        f"{at}: C2PA knows keys on P-256, P-384 and P-521, RSA and Ed25519; give one of these"
    )


def _name(certificate: "x509.Certificate") -> str:
    from cryptography.x509.oid import NameOID

    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()
