#!/usr/bin/python3
# Writes ikev2_keymat.txt: keys of IKEv2 (RFC 7296 sections 2.14, 2.15, 2.17, 2.18; RFC 8784) by Python's own hmac, which shares
# no line with what they test. Run it as: test/vectors/ikev2_keymat.py > test/vectors/ikev2_keymat.txt
import hashlib
import hmac


def prf(h, key, data):
    return hmac.new(key, data, h).digest()


def prf_plus(h, key, seed, length):
    out, t, i = b"", b"", 1
    while len(out) < length:
        t = prf(h, key, t + seed + bytes([i]))
        out += t
        i += 1
    return out[:length]


def stream(label, length):
    """Inputs that anybody can make again: SHA-256 over a label and a count."""
    out, i = b"", 0
    while len(out) < length:
        out += hashlib.sha256(f"{label} {i}".encode()).digest()
        i += 1
    return out[:length]


def show(suffix, data, lengths):
    """Cuts the keys off the keying material in order; returns them by name."""
    keys = {}
    for name, length in lengths:
        keys[name], data = data[:length], data[length:]
        print(f"{name}{suffix} = {keys[name].hex()}")
    return keys


def ike(prf_len, encr_len, integ_len):
    return [("SK_d", prf_len), ("SK_ai", integ_len), ("SK_ar", integ_len), ("SK_ei", encr_len), ("SK_er", encr_len),
            ("SK_pi", prf_len), ("SK_pr", prf_len)]


# PRF, its hash, encryption and Key Length, integrity, bytes of key material of both, length of g^ir
CASES = [(5, "sha256", 20, 256, 0, 36, 0, 32), (5, "sha256", 12, 128, 12, 16, 32, 256),
         (6, "sha384", 20, 128, 0, 20, 0, 64), (7, "sha512", 12, 256, 14, 32, 64, 512),
         (7, "sha512", 28, 0, 0, 36, 0, 96)]

print("# Written by ikev2_keymat.py. encr, bits, integ: transform IDs and Key Length. (pfs): KEYMAT with g^ir (new).")
print("# (rekey): the IKE SA's rekey to PRF_HMAC_SHA2_256. AUTH: the initiator's over `message`, Nr and `id`.")
for n, (prf_id, h, encr, bits, integ, encr_len, integ_len, g_len) in enumerate(CASES):
    inputs = {"Ni": stream(f"ni {n}", 16 + 48 * n), "Nr": stream(f"nr {n}", 32),
              "SPIi": stream(f"spi {n}", 16)[:8], "SPIr": stream(f"spi {n}", 16)[8:],
              "g^ir": stream(f"g {n}", g_len), "g^ir (new)": stream(f"g new {n}", 32),
              "psk": stream(f"psk {n}", 5 + 40 * n), "id": stream(f"id {n}", 20), "message": stream(f"msg {n}", 300)}
    print(f"\nCOUNT = {n}\nprf = {prf_id}\nencr = {encr}\nbits = {bits}\ninteg = {integ}")
    for name, value in inputs.items():
        print(f"{name} = {value.hex()}")
    nonces, spis, new = inputs["Ni"] + inputs["Nr"], inputs["SPIi"] + inputs["SPIr"], inputs["g^ir (new)"]

    seed = prf(h, nonces, inputs["g^ir"])
    print("SKEYSEED =", seed.hex())
    keys = show("", prf_plus(h, seed, nonces + spis, 1024), ike(len(seed), encr_len, integ_len))

    ppk = stream(f"ppk {n}", 32)  # RFC 8784 section 3
    print(f"ppk = {ppk.hex()}")
    for name in ("SK_d", "SK_pi", "SK_pr"):
        print(f"{name} (ppk) = {prf_plus(h, ppk, keys[name], len(keys[name])).hex()}")

    child = [("encr_i", encr_len), ("integ_i", integ_len), ("encr_r", encr_len), ("integ_r", integ_len)]
    show("", prf_plus(h, keys["SK_d"], nonces, 1024), child)
    show(" (pfs)", prf_plus(h, keys["SK_d"], new + nonces, 1024), child)

    seed = prf(h, keys["SK_d"], new + nonces)
    show(" (rekey)", prf_plus("sha256", seed, nonces + spis, 1024), ike(32, encr_len, integ_len))

    pad = prf(h, inputs["psk"], b"Key Pad for IKEv2")
    print("AUTH =", prf(h, pad, inputs["message"] + inputs["Nr"] + prf(h, keys["SK_pi"], inputs["id"])).hex())
