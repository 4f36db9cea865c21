#!/usr/bin/python3
# Writes cert.h: certificates and CRLs, good and bad, by Python's cryptography and by openssl where that can't (version 1,
# RSA-PSS, SHA-1). Keys are made anew and thrown away. Run it as: test/vectors/cert.py > test/vectors/cert.h
import base64
import datetime
import hashlib
import ipaddress
import os
import subprocess
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

EARLY, LATE = datetime.datetime(2000, 1, 1), datetime.datetime(2120, 1, 1)
SHORT = {'CN': NameOID.COMMON_NAME, 'O': NameOID.ORGANIZATION_NAME, 'C': NameOID.COUNTRY_NAME, 'E': NameOID.EMAIL_ADDRESS}
PEM = {}
P256 = ec.SECP256R1


def name(text):
    return x509.Name([x509.NameAttribute(SHORT[a.split('=')[0]], a.split('=')[1]) for a in text.split(', ')] if text else [])


class Made:
    """A certificate with its key."""

    def __init__(self, subject, key):
        self.subject, self.key, self.cert = name(subject), key, None


def sign(builder, key, digest=None):
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256())


def make(label, subject, issuer=None, ca=None, path=None, key=None, san=(), extra=(), usage=None, eku=None, since=EARLY,
         until=LATE, digest=None):
    """issuer None: by itself. ca None: no basicConstraints. extra: (extension, critical) pairs."""
    m = Made(subject, key or ec.generate_private_key(P256()))
    issuer = issuer or m
    b = x509.CertificateBuilder(issuer.subject, m.subject, m.key.public_key(), x509.random_serial_number(), since, until)
    if ca is not None:
        b = b.add_extension(x509.BasicConstraints(ca, path), True)
    if usage is not None:
        bits = dict.fromkeys(['digital_signature', 'content_commitment', 'key_encipherment', 'data_encipherment', 'key_agreement',
                              'key_cert_sign', 'crl_sign', 'encipher_only', 'decipher_only'], False)
        b = b.add_extension(x509.KeyUsage(**{**bits, **dict.fromkeys(usage, True)}), True)
    if eku:
        b = b.add_extension(x509.ExtendedKeyUsage(eku), False)
    if san:
        b = b.add_extension(x509.SubjectAlternativeName(san), False)
    for extension, critical in extra:
        b = b.add_extension(extension, critical)
    m.cert = sign(b, issuer.key, digest)
    PEM[label] = m.cert.public_bytes(serialization.Encoding.PEM).decode()
    return m


def revoke(label, issuer, *revoked, since=EARLY, until=LATE, key=None, extra=(), entry_extra=()):
    b = x509.CertificateRevocationListBuilder(issuer.subject, since, until)
    for m in revoked:
        e = x509.RevokedCertificateBuilder(m.cert.serial_number, since)
        for extension, critical in entry_extra:
            e = e.add_extension(extension, critical)
        b = b.add_revoked_certificate(e.build())
    for extension, critical in extra:
        b = b.add_extension(extension, critical)
    PEM[label] = sign(b, key or issuer.key).public_bytes(serialization.Encoding.PEM).decode()


def openssl(label, subject, issuer, *options, key=None):
    """A certificate that openssl makes, of version 1 unless options say otherwise."""
    m = Made(subject, key or ec.generate_private_key(P256()))
    issuer = issuer or m
    csr = x509.CertificateSigningRequestBuilder(m.subject).sign(m.key, hashes.SHA256())
    with tempfile.TemporaryDirectory() as d:
        paths = {n: os.path.join(d, n) for n in ('csr', 'key', 'ca')}
        pem = serialization.Encoding.PEM
        with open(paths['csr'], 'wb') as f:
            f.write(csr.public_bytes(pem))
        with open(paths['key'], 'wb') as f:
            f.write(issuer.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        if issuer.cert:
            with open(paths['ca'], 'wb') as f:
                f.write(issuer.cert.public_bytes(pem))
            who = ['-CA', paths['ca'], '-CAkey', paths['key'], '-set_serial', '77']
        else:
            who = ['-signkey', paths['key']]
        done = subprocess.run(['openssl', 'x509', '-req', '-in', paths['csr'], '-days', '34000', *who, *options], check=True,
                              capture_output=True)
    PEM[label] = done.stdout.decode()
    m.cert = x509.load_pem_x509_certificate(done.stdout)
    return m


def der(tag, content):
    n = len(content)
    return bytes([tag]) + (bytes([n]) if n < 0x80 else bytes([0x82, n >> 8, n & 0xff])) + content


def resign(label, made, issuer, old, new):
    """The same certificate with other bytes in it, as long, signed anew by ECDSA with SHA-256."""
    tbs = made.cert.tbs_certificate_bytes
    assert tbs.count(old) == 1 and len(old) == len(new)
    tbs = tbs.replace(old, new)
    algorithm = bytes.fromhex('300a06082a8648ce3d040302')
    signature = issuer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    whole = base64.encodebytes(der(0x30, tbs + algorithm + der(3, b'\0' + signature))).decode().replace('\n', '')
    lines = '\n'.join(whole[i:i + 64] for i in range(0, len(whole), 64))
    PEM[label] = f'-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n'


def dns(*texts):
    # The constructor refuses what a hostile CA would write.
    return [x509.DNSName._init_without_validation(t) for t in texts]


def ip(text):
    return x509.IPAddress(ipaddress.ip_address(text))


def rsa_key(bits):
    return rsa.generate_private_key(65537, bits)


def raw(number, value):
    return x509.UnrecognizedExtension(ObjectIdentifier(number), value)


SIGN_CERTS = ['key_cert_sign', 'crl_sign']

# -- plain chains --
root = make('ROOT', 'C=CH, O=Test, CN=Root', ca=True, usage=SIGN_CERTS)
same = make('SAME_NAME', 'C=CH, O=Test, CN=Root', ca=True)
other = make('OTHER', 'C=CH, O=Test, CN=Other', ca=True)
leaf = make('LEAF', 'C=CH, O=Test, CN=leaf.cn.example', root, ca=False, usage=['digital_signature'], eku=[ExtendedKeyUsageOID.SERVER_AUTH],
            san=[*dns('gate.example', '*.wild.example'), x509.RFC822Name('Me@Gate.Example'), ip('192.0.2.1'), ip('192.0.2.65'), ip('2001:db8::1'),
                 x509.DirectoryName(name('CN=inner')), x509.UniformResourceIdentifier('https://uri.example/')],
            extra=[(x509.SubjectKeyIdentifier(bytes(range(20))), False)])
sub = make('SUB', 'O=Test, CN=Sub', root, ca=True, path=0, usage=SIGN_CERTS)
sub_leaf = make('SUB_LEAF', 'CN=sub leaf', sub, san=dns('sub.example'))
deep = make('DEEP', 'CN=Deep', sub, ca=True)
make('DEEP_LEAF', 'CN=deep leaf', deep)
make('EMPTY_SUBJECT', '', root, san=dns('empty.example'))
make('OTHER_LEAF', 'CN=other leaf', other)
make('PINNED_LEAF', 'CN=pinned', ca=False)

# -- dates --
make('EXPIRED', 'CN=expired', root, until=datetime.datetime(2050, 6, 12, 12))
make('FUTURE', 'CN=future', root, since=datetime.datetime(2060, 1, 2, 3, 4))
old_sub = make('OLD_SUB', 'CN=Old Sub', root, ca=True, until=datetime.datetime(2020, 1, 1))
make('OLD_SUB_LEAF', 'CN=old sub leaf', old_sub)
old_root = make('OLD_ROOT', 'CN=Old Root', ca=True, until=datetime.datetime(2020, 1, 1))
make('OLD_ROOT_LEAF', 'CN=old root leaf', old_root)

# -- what a certificate may be used for --
make('USAGE_ENCIPHER', 'CN=encipher', root, usage=['key_encipherment'])
make('USAGE_NON_REPUDIATION', 'CN=non repudiation', root, usage=['content_commitment'])
make('EKU_CODE', 'CN=code', root, eku=[ExtendedKeyUsageOID.CODE_SIGNING])
for n, oid in enumerate(['1.3.6.1.5.5.7.3.17', '1.3.6.1.5.5.8.2.2', '1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2', '2.5.29.37.0']):
    make(f'EKU_GOOD_{n}', 'CN=eku', root, eku=[ExtendedKeyUsageOID.CODE_SIGNING, ObjectIdentifier(oid)])
make('CRITICAL', 'CN=critical', root, extra=[(raw('1.2.3.4.5', b'\x05\x00'), True)])
make('NOT_CRITICAL', 'CN=not critical', root, extra=[(raw('1.2.3.4.5', b'\x05\x00'), False)])
make('CRITICAL_CA', 'CN=critical ca', ca=True, extra=[(raw('1.2.3.4.5', b'\x05\x00'), True)])
critical_sub = make('CRITICAL_SUB', 'CN=Critical Sub', root, ca=True, extra=[(raw('1.2.3.4.5', b'\x05\x00'), True)])
make('CRITICAL_SUB_LEAF', 'CN=critical sub leaf', critical_sub)
not_ca = make('NOT_CA', 'CN=Not CA', root)
make('NOT_CA_LEAF', 'CN=not ca leaf', not_ca)
false_ca = make('FALSE_CA', 'CN=False CA', root, ca=False)
make('FALSE_CA_LEAF', 'CN=false ca leaf', false_ca)
no_sign = make('NO_CERT_SIGN', 'CN=No Cert Sign', root, ca=True, usage=['digital_signature', 'crl_sign'])
make('NO_CERT_SIGN_LEAF', 'CN=no cert sign leaf', no_sign)
make('NO_CERT_SIGN_CA', 'CN=No Cert Sign CA', ca=True, usage=['digital_signature'])
v1 = openssl('V1_SUB', 'CN=V1 Sub', root)
make('V1_LEAF', 'CN=v1 leaf', v1)
openssl('V1_CA', 'CN=V1 CA', None)

# -- algorithms --
openssl('SHA1', 'CN=sha1', root, '-sha1')
sha1_ca = openssl('SHA1_V1_CA', 'CN=SHA1 CA', None, '-sha1')
sha1_root = make('SHA1_ROOT', 'CN=SHA1 Root', ca=True, key=rsa_key(2048), digest=hashes.SHA1())
make('SHA1_ROOT_LEAF', 'CN=under a sha1 root', sha1_root)
openssl('PSS_LEAF', 'CN=pss', sha1_root, '-sha256', '-sigopt', 'rsa_padding_mode:pss')
openssl('PSS_SHA1', 'CN=pss sha1', sha1_root, '-sha1', '-sigopt', 'rsa_padding_mode:pss')
make('RSA1024', 'CN=rsa1024', root, key=rsa_key(1024))
weak = make('RSA1024_CA', 'CN=rsa1024 ca', ca=True, key=rsa_key(1024))
weak_sub = make('RSA1024_SUB', 'CN=RSA1024 Sub', root, ca=True, key=rsa_key(1024))
make('RSA1024_SUB_LEAF', 'CN=rsa1024 sub leaf', weak_sub)
make('ED25519', 'CN=ed25519', root, key=ed25519.Ed25519PrivateKey.generate())
ed_ca = make('ED25519_CA', 'CN=ed25519 ca', ca=True, key=ed25519.Ed25519PrivateKey.generate())
make('ED25519_SIGNED', 'CN=signed by ed25519', ed_ca)
make('BRAINPOOL', 'CN=brainpool', root, key=ec.generate_private_key(ec.BrainpoolP256R1()))
p384 = make('P384_CA', 'CN=P384', ca=True, key=ec.generate_private_key(ec.SECP384R1()), digest=hashes.SHA384())
make('P521_LEAF', 'CN=p521', p384, key=ec.generate_private_key(ec.SECP521R1()), digest=hashes.SHA512())

# -- names that are not what they seem --
make('CN_ONLY', 'CN=gate.example', root)
make('IP_AS_DNS', 'CN=x', root, san=dns('192.0.2.1', 'me@gate.example'))
make('DNS_AS_MAIL', 'CN=x', root, san=[x509.RFC822Name._init_without_validation('gate.example')])
make('NUL_IN_NAME', 'CN=x', root, san=dns('gate.example\0.evil.example'))
make('CONTROL_IN_SUBJECT', 'CN=\x1b[31mred\x07', other)
make('SAN_MALFORMED', 'CN=x', root, extra=[(raw('2.5.29.17', bytes.fromhex('3010820c676174652e6578616d706c65')), False)])

# -- circles and floods --
a, b = Made('CN=Circle A', ec.generate_private_key(P256())), Made('CN=Circle B', ec.generate_private_key(P256()))
make('CIRCLE_A', 'CN=Circle A', b, ca=True, key=a.key)
make('CIRCLE_B', 'CN=Circle B', a, ca=True, key=b.key)
make('CIRCLE_LEAF', 'CN=circle leaf', a)
make('FLOOD', 'C=CH, O=Test, CN=Root', same, ca=True)
# The root's new key under its old name, vouched for by the old one: self-issued, so it does not count for path lengths.
roll = make('ROLLOVER', 'O=Test, CN=Sub', sub, ca=True)
make('ROLLOVER_LEAF', 'CN=rollover leaf', roll)


# -- name constraints --
def constrained(label, subject, permitted=None, excluded=None, critical=True, issuer=root):
    return make(label, subject, issuer, ca=True, extra=[(x509.NameConstraints(permitted, excluded), critical)])


def net(text):
    return x509.IPAddress(ipaddress.ip_network(text))


def mails(*texts):
    return [x509.RFC822Name._init_without_validation(t) for t in texts]


names = constrained('NAMES', 'CN=Names', [*dns('good.example'), *mails('good.example', '.below.example', 'one@box.example'), net('192.0.2.0/24'),
                                          x509.DirectoryName(name('C=CH, O=Good'))],
                    [*dns('bad.good.example'), *mails('evil@good.example'), net('192.0.2.128/25'), x509.DirectoryName(name('C=CH, O=Good, CN=Bad'))])
GOOD = 'C=CH, O=Good, CN=x'
make('NAMES_GOOD', 'C=CH, O=good, CN=x', names, san=[*dns('Good.Example', 'a.b.good.example', 'notbad.good.example'),
                                                     *mails('x@good.example', 'y@host.below.example', 'one@box.example'), ip('192.0.2.1')])
make('NAMES_NONE', '', names)
make('NAMES_DNS', GOOD, names, san=dns('other.example'))
make('NAMES_DNS_SUFFIX', GOOD, names, san=dns('notgood.example'))
make('NAMES_DNS_EXCLUDED', GOOD, names, san=dns('a.BAD.good.example'))
make('NAMES_DNS_DOT', GOOD, names, san=dns('bad.good.example.'))
make('NAMES_DNS_NUL', GOOD, names, san=dns('evil.example\0.good.example'))
make('NAMES_MAIL', GOOD, names, san=mails('x@other.example'))
make('NAMES_MAIL_BELOW', GOOD, names, san=mails('x@below.example'))
make('NAMES_MAIL_BOX', GOOD, names, san=mails('two@box.example'))
make('NAMES_MAIL_EXCLUDED', GOOD, names, san=mails('Evil@good.example'))
make('NAMES_MAIL_NO_AT', GOOD, names, san=mails('good.example'))
make('NAMES_MAIL_SUBJECT', 'C=CH, O=Good, E=x@other.example', names)
make('NAMES_IP', GOOD, names, san=[ip('192.0.3.1')])
make('NAMES_IP_EXCLUDED', GOOD, names, san=[ip('192.0.2.129')])
make('NAMES_IP6', GOOD, names, san=[ip('2001:db8::1')])
make('NAMES_DN', 'C=CH, O=Other, CN=x', names)
make('NAMES_DN_PREFIX', 'C=CH', names)
make('NAMES_DN_EXCLUDED', 'C=CH, O=Good, CN=BAD', names)
make('NAMES_DN_SAN', GOOD, names, san=[x509.DirectoryName(name('C=CH, O=Other'))])
lower = make('NAMES_SUB', 'C=CH, O=Good, CN=Sub', names, ca=True)
make('NAMES_SUB_GOOD', GOOD, lower, san=dns('good.example'))
make('NAMES_SUB_BAD', GOOD, lower, san=dns('other.example'))
stray = make('NAMES_STRAY', 'C=DE, CN=Stray', names, ca=True)
make('NAMES_STRAY_LEAF', GOOD, stray)
soft = constrained('SOFT', 'CN=Soft', dns('good.example'), critical=False)
make('SOFT_BAD', 'CN=x', soft, san=dns('other.example'))
named_root = make('NAMED_ROOT', 'CN=Named Root', ca=True, extra=[(x509.NameConstraints(dns('good.example'), None), True)])
make('NAMED_ROOT_BAD', 'CN=x', named_root, san=dns('other.example'))
uri = constrained('URIS', 'CN=Uris', [x509.UniformResourceIdentifier('good.example')])
make('URIS_WITH', 'CN=x', uri, san=[x509.UniformResourceIdentifier('https://good.example/')])
make('URIS_WITHOUT', 'CN=x', uri, san=dns('good.example'))
# The extension twice (RFC 5280 section 4.2): who believes the second has forgotten the first. 99 is no extension.
twice = make('TWICE', 'CN=Twice', root, ca=True, extra=[(x509.NameConstraints(dns('good.example'), None), True),
                                                       (raw('2.5.29.99', bytes.fromhex('3000')), False)])
resign('TWICE', twice, root, bytes.fromhex('0603551d63'), bytes.fromhex('0603551d1e'))
make('TWICE_LEAF', 'CN=x', twice, san=dns('other.example'))
# minimum 1, which RFC 5280 forbids: 30 12 a0 10 { 30 0e { 82 09 "a.example" 80 01 01 } }
minimum = make('MINIMUM', 'CN=Minimum', root, ca=True, extra=[(raw('2.5.29.30', bytes.fromhex('3012a010300e') + b'\x82\x09a.example' + b'\x80\x01\x01'), True)])
make('MINIMUM_LEAF', 'CN=x', minimum, san=dns('a.example'))

# -- CRLs --
revoke('CRL_EMPTY', root)
revoke('CRL_OTHERS', root, sub, other)
revoke('CRL_LEAF', root, leaf, since=datetime.datetime(2001, 1, 1), extra=[(x509.CRLNumber(5), False)])
revoke('CRL_NEWER', root, since=datetime.datetime(2002, 1, 1))
revoke('CRL_SUB', root, sub)
revoke('CRL_SUB_LEAF', sub, sub_leaf)
revoke('CRL_EXPIRED', root, until=datetime.datetime(2020, 1, 1))
revoke('CRL_FUTURE', root, since=datetime.datetime(2060, 1, 1))
revoke('CRL_FORGED', root, key=other.key)
revoke('CRL_OTHER_CA', other, leaf)
revoke('CRL_DELTA', root, extra=[(x509.DeltaCRLIndicator(1), True)])
revoke('CRL_PARTIAL', root, extra=[(x509.IssuingDistributionPoint(None, None, True, False, None, False, False), True)])
revoke('CRL_INDIRECT', root, leaf, entry_extra=[(x509.CertificateIssuer([x509.DirectoryName(name('CN=Other'))]), True)])
no_crl = make('NO_CRL_SIGN', 'CN=No CRL Sign', ca=True, usage=['key_cert_sign'])
make('NO_CRL_SIGN_LEAF', 'CN=no crl sign leaf', no_crl)
revoke('CRL_NO_CRL_SIGN', no_crl)

print('/* Certificates and CRLs, made by cert.py, which says what each is. Valid from 2000 to 2120 unless they are not to be. */')
print('#ifndef ADIT_VECTORS_CERT_H\n#define ADIT_VECTORS_CERT_H\n')
print('/* clang-format off */')
for label, pem in PEM.items():
    lines = pem.strip().split('\n')
    print(f'#define PEM_{label} \\')
    print(' \\\n'.join(f'    "{line}\\n"' for line in lines))
hint = hashlib.sha1(root.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
print('#define HINT_ROOT {' + ', '.join(f'0x{x:02x}' for x in hint.digest()) + '}')
print('/* clang-format on */\n\n#endif')
