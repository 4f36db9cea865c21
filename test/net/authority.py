"""Keys and certificates for tests, made by openssl: independent of what they are held against."""

import hashlib
import os
import subprocess

KINDS = {
    'rsa': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
    'rsa3072': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:3072'],
    'p256': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
    'p384': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384'],
    'p521': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-521'],
    'ed25519': ['-algorithm', 'ED25519'],
}
CA = 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n'
LEAF = 'keyUsage=critical,digitalSignature\nsubjectAltName={}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'


class Authority:
    """Files NAME.key and NAME.crt in a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def openssl(self, *argv):
        return subprocess.run(['openssl', *argv], cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), 'w') as f:
            f.write(text)

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def key(self, name, kind='p256'):
        """A private key; its public half, as PEM."""
        self.openssl('genpkey', *KINDS[kind], '-out', f'{name}.key')
        os.chmod(self.path(f'{name}.key'), 0o600)
        return self.openssl('pkey', '-in', f'{name}.key', '-pubout')

    def fingerprint(self, name):
        """SHA-256 of the public key: who proves himself by a raw key goes by that, unless he has another identity."""
        spki = subprocess.run(['openssl', 'pkey', '-in', f'{name}.key', '-pubout', '-outform', 'DER'], cwd=self.folder,
                              check=True, capture_output=True).stdout
        return hashlib.sha256(spki).hexdigest()

    def certify(self, name, issuer, extensions):
        self.openssl('req', '-new', '-key', f'{name}.key', '-subj', f'/C=CH/O=adit test/CN={name}', '-out', 'request')
        self.write('extensions', extensions)
        by = ['-signkey', f'{name}.key'] if issuer is None else ['-CA', f'{issuer}.crt', '-CAkey', f'{issuer}.key', '-CAcreateserial']
        self.openssl('x509', '-req', '-in', 'request', *by, '-extfile', 'extensions', '-days', '3650', '-sha256', '-out', f'{name}.crt')

    def ca(self, name='root', issuer=None, kind='p256'):
        self.key(name, kind)
        self.certify(name, issuer, CA)

    def cert(self, name, kind='p256', issuer='root', san=None):
        self.key(name, kind)
        self.certify(name, issuer, LEAF.format(san or f'DNS:{name}.example'))

    def crl(self, *revoked, issuer='root'):
        """NAME.crl of the issuer with these certificates."""
        self.write('ca.cnf', '[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=30\n')
        self.write('index', '')
        self.write('number', '1000\n')
        by = ['-config', 'ca.cnf', '-cert', f'{issuer}.crt', '-keyfile', f'{issuer}.key']
        for name in revoked:
            self.openssl('ca', *by, '-revoke', f'{name}.crt')
        self.openssl('ca', *by, '-gencrl', '-out', f'{issuer}.crl')
