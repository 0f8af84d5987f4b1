"""An authority of our own, and certificates that it issues for content credentials."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
SIGNS = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
ISSUES = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def ec_key(curve: ec.EllipticCurve | None = None) -> Key:
    return ec.generate_private_key(curve or ec.SECP256R1())


def rsa_key() -> Key:
    return rsa.generate_private_key(65537, 2048)


def name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests of hallo3"),
            x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
    )


@dataclass(frozen=True)
class Authority:
    key: Key
    certificate: x509.Certificate

    @classmethod
    def make(cls) -> "Authority":
        key, now = ec_key(), datetime.now(UTC)
        builder = x509.CertificateBuilder(name("an authority"), name("an authority"), key.public_key(), 1)
        builder = builder.not_valid_before(now - timedelta(90)).not_valid_after(now + timedelta(90))
        for extension in (x509.BasicConstraints(True, None), ISSUES):
            builder = builder.add_extension(extension, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return cls(key, builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256()))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(PEM).decode()

    def issue(self, of: Key, from_day: int = -1, to_day: int = 30, for_mail: bool = True) -> bytes:
        """PEM: a certificate for "a newsroom", valid between so many days from now, and the authority's."""
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name("an authority"), name("a newsroom"), of.public_key(), 2)
        builder = builder.not_valid_before(now + timedelta(from_day)).not_valid_after(now + timedelta(to_day))
        for extension in (x509.BasicConstraints(False, None), SIGNS):
            builder = builder.add_extension(extension, critical=True)
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        use = [ExtendedKeyUsageOID.EMAIL_PROTECTION] if for_mail else [ExtendedKeyUsageOID.SERVER_AUTH]
        for other in (known, x509.ExtendedKeyUsage(use)):
            builder = builder.add_extension(other, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM) + self.pem.encode()


def key_pem(key: Key, password: bytes | None = None) -> bytes:
    """As openssl writes keys of old, or with a passphrase."""
    form = serialization.PrivateFormat
    if password is None:
        return key.private_bytes(PEM, form.TraditionalOpenSSL, serialization.NoEncryption())
    return key.private_bytes(PEM, form.PKCS8, serialization.BestAvailableEncryption(password))


def write_credentials(folder: Path, authority: Authority, key: Key) -> tuple[Path, Path]:
    """cert.pem and key.pem."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cert.pem").write_bytes(authority.issue(key))
    (folder / "key.pem").write_bytes(key_pem(key))
    return folder / "cert.pem", folder / "key.pem"
