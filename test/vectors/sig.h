/*
 * Keys made by OpenSSL 3.0 in the forms it writes, signatures it made with them, and those of RFC 8032 section 7.1 and
 * RFC 4754 section 8. The keys guard nothing.
 */
#ifndef ADIT_VECTORS_SIG_H
#define ADIT_VECTORS_SIG_H

#include "crypto/sig.h"

static const char pem_rsa_pkcs8[] = "-----BEGIN PRIVATE KEY-----\n"
                                    "MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQCgcWORgIVQuetn\n"
                                    "Vmox9b6aMm4D3G6ligfcX2qzgC4Pgeoo3r7JoN9Bbl+bdL0OP3I/mZ/ZlhYjH2L+\n"
                                    "GICRGkV3D7tKRAiLr0mlqe3EhI9SzFOmsnDhEowofFIeSxysKeSCe584SJeP76CN\n"
                                    "9C0A0PyBlnk00viLllzbUqMDNTP8LtzBVP+ixZslf8zEEgU4WK0GMtuT7gwgw0cq\n"
                                    "T8jJZRdQMIzWbc3hciS0zq7by3j2L+MnYqmHfWO/lqYGXV4u8A4xZr4sSypXKAho\n"
                                    "whmrs1lfSDI1VfP24kR5P/ccB+JdP41YL4yH0b2+fJrqkOCCj4xdobjAmoJ/5zfH\n"
                                    "0Y4gUIL7AgMBAAECggEAMMxsCUw6wCPcKnEJGarxzvp5paj86lKCM4+951ycJdFQ\n"
                                    "xB+DjdXlMYR9hc3K1rOLbzatfMN+di5MsJYJPJjt+dmKEHuC0eF9l+qIS9Y5tWg6\n"
                                    "JSBu3rYCdSni3B3iWabgPqOU+MxzdK7geWyD55SoyE1ZDi0AtYwFMBwBQq+C4Tdw\n"
                                    "O64BufdFqtdjZDPDGBz5jaKuX7zA00r8sh3dhLA/UgYUBmGXNYdKtJxLLkHF/M4T\n"
                                    "28WApw44SCgdfFk/nPSTZxBtaDrUZ+V8pFfT367elwyoEtJOkP9orrvYzvzQActS\n"
                                    "Ra5Wl1rSheH4TMgVMiXH4xxXA3e5kk9v/o2EOebfuQKBgQDT4C4LDzP8hpOQELv5\n"
                                    "NmZOLzJijo7KQfH0+ShBi/PuodqdwJVkp9mANIcJq2WN0SCLxiMtzMJHbgAK9iWa\n"
                                    "mOurG4JUHjojN89urOeikgAEs9jSUDFFowbTaRDUnUlzfuqh/SVZ/B0z11g+wN0Q\n"
                                    "y4xQA3UUUEOmFmd4V1M5LB90TwKBgQDB2ybB7IUGexpXMCfO5u/e0BBISgd+Ytiq\n"
                                    "2+Hin7T+4uWlkOLvSrJdOTt1vWb7Osob4U0XaxE4AOCtEDVZmk3lW2AMStzC6qpW\n"
                                    "5qChXDfDtiSZ1jBqHUZQBCtJp9Vlf4UyB9+X+JVEejA2NwdN3nQwkFFSBxGCFi+q\n"
                                    "6pkwf//flQKBgEeDGwdQklNheNzfSRLMcath8rehNkC+EVSF5Dh7bFHW/1rPbZ0T\n"
                                    "qi3DjPCOkTBUrY9/yM/klI5XalxIyFht1N1j45FQwn6wj6rjYStV6/uqWDxkJL1E\n"
                                    "UUF57NxWWjxJUhhqwPimR5T/0iEcJ4FLsogvIo1AqhSc6z+K+eQKKHOxAoGASjfg\n"
                                    "L9Cg4WlSHV1XcFRkM7cO9M467j1j3I5QfhZNEmTGLUw6RgkgHqbhx+MawUaxyFjK\n"
                                    "zhN0xS841all84crGYuRS0OCH7H+Q0UK7JxE0U4z1x307TuGBu6BsDJsde6LjSsM\n"
                                    "hL9sTopFWQxaZIqti0ZFjBUes+JQn6wvuCzZRr0CgYA+thXjTdkhOIK4seK8kA4h\n"
                                    "ECk2QPZfUp0sWI9yqfhaY+B6xJoUSL2WRK7pJhhQnsl/T0Hw37a5iZgypzHBsoRl\n"
                                    "tKM0WCYVDPkk2zuJZUPcb5CPWkPNs85TCkrcmBs38ry+O9IW1CTuezonTC/lcBo1\n"
                                    "N/Ojd8DrZBSNWptNUAURLw==\n"
                                    "-----END PRIVATE KEY-----\n";

static const char pem_rsa_pkcs1[] = "-----BEGIN RSA PRIVATE KEY-----\n"
                                    "MIIEogIBAAKCAQEAoHFjkYCFULnrZ1ZqMfW+mjJuA9xupYoH3F9qs4AuD4HqKN6+\n"
                                    "yaDfQW5fm3S9Dj9yP5mf2ZYWIx9i/hiAkRpFdw+7SkQIi69JpantxISPUsxTprJw\n"
                                    "4RKMKHxSHkscrCnkgnufOEiXj++gjfQtAND8gZZ5NNL4i5Zc21KjAzUz/C7cwVT/\n"
                                    "osWbJX/MxBIFOFitBjLbk+4MIMNHKk/IyWUXUDCM1m3N4XIktM6u28t49i/jJ2Kp\n"
                                    "h31jv5amBl1eLvAOMWa+LEsqVygIaMIZq7NZX0gyNVXz9uJEeT/3HAfiXT+NWC+M\n"
                                    "h9G9vnya6pDggo+MXaG4wJqCf+c3x9GOIFCC+wIDAQABAoIBADDMbAlMOsAj3Cpx\n"
                                    "CRmq8c76eaWo/OpSgjOPvedcnCXRUMQfg43V5TGEfYXNytazi282rXzDfnYuTLCW\n"
                                    "CTyY7fnZihB7gtHhfZfqiEvWObVoOiUgbt62AnUp4twd4lmm4D6jlPjMc3Su4Hls\n"
                                    "g+eUqMhNWQ4tALWMBTAcAUKvguE3cDuuAbn3RarXY2Qzwxgc+Y2irl+8wNNK/LId\n"
                                    "3YSwP1IGFAZhlzWHSrScSy5BxfzOE9vFgKcOOEgoHXxZP5z0k2cQbWg61GflfKRX\n"
                                    "09+u3pcMqBLSTpD/aK672M780AHLUkWuVpda0oXh+EzIFTIlx+McVwN3uZJPb/6N\n"
                                    "hDnm37kCgYEA0+AuCw8z/IaTkBC7+TZmTi8yYo6OykHx9PkoQYvz7qHancCVZKfZ\n"
                                    "gDSHCatljdEgi8YjLczCR24ACvYlmpjrqxuCVB46IzfPbqznopIABLPY0lAxRaMG\n"
                                    "02kQ1J1Jc37qof0lWfwdM9dYPsDdEMuMUAN1FFBDphZneFdTOSwfdE8CgYEAwdsm\n"
                                    "weyFBnsaVzAnzubv3tAQSEoHfmLYqtvh4p+0/uLlpZDi70qyXTk7db1m+zrKG+FN\n"
                                    "F2sROADgrRA1WZpN5VtgDErcwuqqVuagoVw3w7YkmdYwah1GUAQrSafVZX+FMgff\n"
                                    "l/iVRHowNjcHTd50MJBRUgcRghYvquqZMH//35UCgYBHgxsHUJJTYXjc30kSzHGr\n"
                                    "YfK3oTZAvhFUheQ4e2xR1v9az22dE6otw4zwjpEwVK2Pf8jP5JSOV2pcSMhYbdTd\n"
                                    "Y+ORUMJ+sI+q42ErVev7qlg8ZCS9RFFBeezcVlo8SVIYasD4pkeU/9IhHCeBS7KI\n"
                                    "LyKNQKoUnOs/ivnkCihzsQKBgEo34C/QoOFpUh1dV3BUZDO3DvTOOu49Y9yOUH4W\n"
                                    "TRJkxi1MOkYJIB6m4cfjGsFGschYys4TdMUvONWpZfOHKxmLkUtDgh+x/kNFCuyc\n"
                                    "RNFOM9cd9O07hgbugbAybHXui40rDIS/bE6KRVkMWmSKrYtGRYwVHrPiUJ+sL7gs\n"
                                    "2Ua9AoGAPrYV403ZITiCuLHivJAOIRApNkD2X1KdLFiPcqn4WmPgesSaFEi9lkSu\n"
                                    "6SYYUJ7Jf09B8N+2uYmYMqcxwbKEZbSjNFgmFQz5JNs7iWVD3G+Qj1pDzbPOUwpK\n"
                                    "3JgbN/K8vjvSFtQk7ns6J0wv5XAaNTfzo3fA62QUjVqbTVAFES8=\n"
                                    "-----END RSA PRIVATE KEY-----\n";

static const char pem_rsa_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                     "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAoHFjkYCFULnrZ1ZqMfW+\n"
                                     "mjJuA9xupYoH3F9qs4AuD4HqKN6+yaDfQW5fm3S9Dj9yP5mf2ZYWIx9i/hiAkRpF\n"
                                     "dw+7SkQIi69JpantxISPUsxTprJw4RKMKHxSHkscrCnkgnufOEiXj++gjfQtAND8\n"
                                     "gZZ5NNL4i5Zc21KjAzUz/C7cwVT/osWbJX/MxBIFOFitBjLbk+4MIMNHKk/IyWUX\n"
                                     "UDCM1m3N4XIktM6u28t49i/jJ2Kph31jv5amBl1eLvAOMWa+LEsqVygIaMIZq7NZ\n"
                                     "X0gyNVXz9uJEeT/3HAfiXT+NWC+Mh9G9vnya6pDggo+MXaG4wJqCf+c3x9GOIFCC\n"
                                     "+wIDAQAB\n"
                                     "-----END PUBLIC KEY-----\n";

static const char pem_rsa_other[] = "-----BEGIN PRIVATE KEY-----\n"
                                    "MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQCgtu5Cag/0X2fX\n"
                                    "npnLs4ArtceUn/BLtul09ZAJ3vvLkczQfugmshYf5X4/oxKm5OovIkye+LpJy+ip\n"
                                    "PHQCNKz9uEKazOpgHlp1PHvOJtzaOLIrtezdfpG3TwfJMlKdPKAZdbW5oPftupJ6\n"
                                    "c2uJ8fpMObAzsyLX/uMvD4xH6PbrzaIGZCbT1ThjZUavZIG/ubZQPhPHBKRE5xCz\n"
                                    "lG5UP1SqQOYpixvqLBr5WGXDmxkRSmxbiLD8DNOd8425FMlqw4+a8k0W2Fp/P3iq\n"
                                    "qo63bAIWV3MY0Tq9GWutNke24TAF5nLgAXHbERxQTBzGej6t3JS+/uj79WGx5zni\n"
                                    "g4zsYN8fAgMBAAECggEAG7647zpEOtnloXG9906rx9//7oaWA1w2fXyPO0UFjyVC\n"
                                    "iJQAG/4Ol78UxoOuiqVmUHDJbYBfGLJdHipTlLXnT33p8bOCmslisG6aqQJIilvT\n"
                                    "Vnx3wd1B5rV8EJ3haUe4E+0gTEWfx6i39O/MFupxXYtwAdzhHQzhx5QVkayERDzb\n"
                                    "vPRW34SE337tDQ37aXuU+NIiC2hypIvKbF1jfytUeryj9RDjqgVoNYChAWndDUvv\n"
                                    "17cte5nVGjAXvLJra9loBNEJsHbF6X69s3SDKKjN0MUh2c332VzM2wiY4YIwayoC\n"
                                    "krDRClWHYz4SyCCVuWyAT5figoP52CEhbmrNJeLHwQKBgQDLK4RfgY71o7kc62XM\n"
                                    "leXLeQb+uECvDmePZyC1SbeAjiLOjilk6l9ZvdpJKTuNzDA3qORI0xmL4I+TU3Kn\n"
                                    "yKQ1LqkPWb6fGAC6YS3B+EUULf1Pq4C7u0Gj9JACJcSJH+snSHQ+F09FPYQwhJ1U\n"
                                    "wtL1fZCjRtLUCxtUq5zrYr7CEQKBgQDKgUUmlWY/CZ8eIscrvXfQ2yCSVIkU6ciF\n"
                                    "xnXOwBHQn7CbnllquednbbSKV5q5rIemEO2Cet/8e4T4QJEomKVOm1N1ATJjBE5I\n"
                                    "k+zJ6hlAgVVT08XYwqdxvjpjkVBg59PLdoe7i352tfpVvTGKnRsM/lxCTfIUGQo4\n"
                                    "OExqlYleLwKBgD1hsGSKZ/6esFakZ+UfhIWs0wgx8pjw6SjSJ3eeBeq5BpsRKEBs\n"
                                    "7tHWIhToeC2m+wpV5GJ8JMO13KrOE13NqI7Iwhr5KjY2skGdCo4HzBcErftb/VC6\n"
                                    "imJWiQudDXvAQPNlWHlJ4ZExvLZL2py5H7M7dG9f/mJB2MgD8SzMcIWBAoGAMlaN\n"
                                    "/PhYUUUwA4q7ndjcRtOhth5DcSpoCTD7Kei+xPBdM2HaclhB+Ijhvx3lvU/w7Ev6\n"
                                    "7ltjAF0oAZnzO3cuaGreBRDGGK0CVLJIwyxpGIrNzievX6GLhA+4bfW6WExoboRJ\n"
                                    "W0piplm4H8YG4aEKD2HPR0Ae8/YBf1YnULtZSUsCgYAClO0eWsS3wUoqlFqLBthw\n"
                                    "s35Iuu2Pg8ipNkhW0FebpT4kar49UhwqbXpXqE1aFJKaOfoe4arNuvdoK4vPLnQA\n"
                                    "MRuyuhkEP2ZFUn0M0YBmV+q2UI3tVs1zQx9RFgADhbMKZdZl5xWCJ+FFWILsLq49\n"
                                    "dIb+AoKSlnFw10lr6Qok5Q==\n"
                                    "-----END PRIVATE KEY-----\n";

static const char pem_rsa_1024[] = "-----BEGIN PRIVATE KEY-----\n"
                                   "MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBAN9cPCD9UzFnGZsk\n"
                                   "S6JItrsT0c9H8imvDRi4DxjT3yIjIRieP/3DCUVUfBC9MKWWf5yxdmJ/2n8SnBfN\n"
                                   "ory4C2FEb14hjnIntMaUDfUP9hDnlooN3HPefA1MAitNuyQqqhB9E21IxUcw49cx\n"
                                   "l5TtaBlwQidrvm3FmTFg0uKGKXutAgMBAAECgYAgG7U1FNV5u5VtvOj2ejdyayX1\n"
                                   "AyWnoldin0rkScjAsoYWcOFIDFpv0fZHvbqZgynzD3uyKyjwrW8s6M2lDVvtKbBU\n"
                                   "ubPtZG8oC5AHjZo22P5wrEWihqvELEfXAZRTMb1b/eKitMBT0v5eDr3MUlhv5/hd\n"
                                   "AWglf9tVb75qzZ+CgQJBAP9hEXbGt5G0jT1vRCgroTlVSxK8eTf0k2C6QzzN4hgY\n"
                                   "osLlam6QUir1YvVyNE7fsVUC2JLATn8xFMTf5do9wGECQQDf5z157pWJ8rukY1Bs\n"
                                   "RGDBweu6zBm6fmCekfklkcx940E85MNPg2QSZhjLMLvx6D180cXfgphAKU5jfKjQ\n"
                                   "RS7NAkBcOT6oSRzztmMnI25Wn2LqpH2m939DEMTEMp+jbqpOj17/yP+FjALQVqt0\n"
                                   "/dgb/7Y3f/6cCGyQjDX23vBPvushAkEAlmmHePP37TXtLB+zlSfSQBd/vnsCBbCE\n"
                                   "Q8IYN07cqu0RlFCxjCbeASYpHcbdW0MCm2lonh/jG6ckC91gopj3OQJAUkbiFNlv\n"
                                   "e44lQvYoqYn7jpzrXdNl4eJSC7G2sucJPqvNSpITMm3MDDHh/8HUBK3rn/5v8ovn\n"
                                   "xiETESBLpOMv4A==\n"
                                   "-----END PRIVATE KEY-----\n";

static const char pem_rsa_1024_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                          "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDfXDwg/VMxZxmbJEuiSLa7E9HP\n"
                                          "R/Iprw0YuA8Y098iIyEYnj/9wwlFVHwQvTClln+csXZif9p/EpwXzaK8uAthRG9e\n"
                                          "IY5yJ7TGlA31D/YQ55aKDdxz3nwNTAIrTbskKqoQfRNtSMVHMOPXMZeU7WgZcEIn\n"
                                          "a75txZkxYNLihil7rQIDAQAB\n"
                                          "-----END PUBLIC KEY-----\n";

static const char pem_ecdsa_256_pkcs8[] = "-----BEGIN PRIVATE KEY-----\n"
                                          "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2ely7Pd1wNskEVV5\n"
                                          "mUnX36i7TS2yeBLQ8OLeTTC9h1ihRANCAAQmUj+JM1JhzZIGOj85pvZ7xsBqIW83\n"
                                          "4Gk/k+2HXET+hW2Gl59d8KuYMugKKEUHMWETc53VQ8P6rIU1tYQkNrYb\n"
                                          "-----END PRIVATE KEY-----\n";

static const char pem_ecdsa_256_sec1[] = "-----BEGIN EC PARAMETERS-----\n"
                                         "BggqhkjOPQMBBw==\n"
                                         "-----END EC PARAMETERS-----\n"
                                         "-----BEGIN EC PRIVATE KEY-----\n"
                                         "MHcCAQEEINnpcuz3dcDbJBFVeZlJ19+ou00tsngS0PDi3k0wvYdYoAoGCCqGSM49\n"
                                         "AwEHoUQDQgAEJlI/iTNSYc2SBjo/Oab2e8bAaiFvN+BpP5Pth1xE/oVthpefXfCr\n"
                                         "mDLoCihFBzFhE3Od1UPD+qyFNbWEJDa2Gw==\n"
                                         "-----END EC PRIVATE KEY-----\n";

static const char pem_ecdsa_256_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                           "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJlI/iTNSYc2SBjo/Oab2e8bAaiFv\n"
                                           "N+BpP5Pth1xE/oVthpefXfCrmDLoCihFBzFhE3Od1UPD+qyFNbWEJDa2Gw==\n"
                                           "-----END PUBLIC KEY-----\n";

static const char pem_ecdsa_384_pkcs8[] = "-----BEGIN PRIVATE KEY-----\n"
                                          "MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDBVN9vaReT/qKyTptLr\n"
                                          "/aaav8o9ZqE5iy6NNJNCD78JHYoTxBWn2ENS/fMOrDTMJ3ShZANiAARssiMOPo2n\n"
                                          "70z5izj/1uwVtN0qxH6/2FAYMNN2u6p2/2TM31jvWUnLDGONKIM4RR83B1hJ7Si9\n"
                                          "s0puAUHGOstDX/4SVC7jU1bRlnaxHRStww0lspRK+WKZQZiMqd7s+5M=\n"
                                          "-----END PRIVATE KEY-----\n";

static const char pem_ecdsa_384_sec1[] = "-----BEGIN EC PARAMETERS-----\n"
                                         "BgUrgQQAIg==\n"
                                         "-----END EC PARAMETERS-----\n"
                                         "-----BEGIN EC PRIVATE KEY-----\n"
                                         "MIGkAgEBBDBVN9vaReT/qKyTptLr/aaav8o9ZqE5iy6NNJNCD78JHYoTxBWn2ENS\n"
                                         "/fMOrDTMJ3SgBwYFK4EEACKhZANiAARssiMOPo2n70z5izj/1uwVtN0qxH6/2FAY\n"
                                         "MNN2u6p2/2TM31jvWUnLDGONKIM4RR83B1hJ7Si9s0puAUHGOstDX/4SVC7jU1bR\n"
                                         "lnaxHRStww0lspRK+WKZQZiMqd7s+5M=\n"
                                         "-----END EC PRIVATE KEY-----\n";

static const char pem_ecdsa_384_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                           "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEbLIjDj6Np+9M+Ys4/9bsFbTdKsR+v9hQ\n"
                                           "GDDTdruqdv9kzN9Y71lJywxjjSiDOEUfNwdYSe0ovbNKbgFBxjrLQ1/+ElQu41NW\n"
                                           "0ZZ2sR0UrcMNJbKUSvlimUGYjKne7PuT\n"
                                           "-----END PUBLIC KEY-----\n";

static const char pem_ecdsa_521_pkcs8[] = "-----BEGIN PRIVATE KEY-----\n"
                                          "MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBFVOPoNgIztX7xpS+\n"
                                          "huXx9ctxNZb/RUgTTYzuD6h8iBU1mJLQeI0v2b80X8CaufEqm9/H9zRsSNzTVhJb\n"
                                          "0kPWrFWhgYkDgYYABABy6B1UE6UdXPhmroPOH6q4yfCM4u7xFoK8djYWE6Ia2zYD\n"
                                          "3QKrtd6tRPsGpZmfYSbmZngRB8bSRJZRU50BGH6g1wH5moJvmBl6MzFHYyiqwRZ8\n"
                                          "PJBo0yDEzldsvEIff2U/Dcx9uPc96tzF+dnbX4pSUr1ycvHv/LORUPlB+gWK3HhU\n"
                                          "yA==\n"
                                          "-----END PRIVATE KEY-----\n";

static const char pem_ecdsa_521_sec1[] = "-----BEGIN EC PARAMETERS-----\n"
                                         "BgUrgQQAIw==\n"
                                         "-----END EC PARAMETERS-----\n"
                                         "-----BEGIN EC PRIVATE KEY-----\n"
                                         "MIHcAgEBBEIBFVOPoNgIztX7xpS+huXx9ctxNZb/RUgTTYzuD6h8iBU1mJLQeI0v\n"
                                         "2b80X8CaufEqm9/H9zRsSNzTVhJb0kPWrFWgBwYFK4EEACOhgYkDgYYABABy6B1U\n"
                                         "E6UdXPhmroPOH6q4yfCM4u7xFoK8djYWE6Ia2zYD3QKrtd6tRPsGpZmfYSbmZngR\n"
                                         "B8bSRJZRU50BGH6g1wH5moJvmBl6MzFHYyiqwRZ8PJBo0yDEzldsvEIff2U/Dcx9\n"
                                         "uPc96tzF+dnbX4pSUr1ycvHv/LORUPlB+gWK3HhUyA==\n"
                                         "-----END EC PRIVATE KEY-----\n";

static const char pem_ecdsa_521_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                           "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAcugdVBOlHVz4Zq6Dzh+quMnwjOLu\n"
                                           "8RaCvHY2FhOiGts2A90Cq7XerUT7BqWZn2Em5mZ4EQfG0kSWUVOdARh+oNcB+ZqC\n"
                                           "b5gZejMxR2MoqsEWfDyQaNMgxM5XbLxCH39lPw3Mfbj3PercxfnZ21+KUlK9cnLx\n"
                                           "7/yzkVD5QfoFitx4VMg=\n"
                                           "-----END PUBLIC KEY-----\n";

static const char pem_ed25519_pkcs8[] = "-----BEGIN PRIVATE KEY-----\n"
                                        "MC4CAQAwBQYDK2VwBCIEIMNgOglG8DSzmpQQOjVyUjJNqVOW+sltrhfdq3wx4JUC\n"
                                        "-----END PRIVATE KEY-----\n";

static const char pem_ed25519_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                         "MCowBQYDK2VwAyEAhX4cJl0DTCoPbDs5lFSi/tAHpuhXhysY514ShbVc8cU=\n"
                                         "-----END PUBLIC KEY-----\n";

static const char pem_encrypted_pkcs8[] = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
                                          "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiOhno3MJW1LQICCAAw\n"
                                          "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEENNq9PvlLTXkK3+UBSG2Xu4EgZD2\n"
                                          "NQsI0wA1LrGuAtzX3JMrMCAPehUDvnZD5lslMYwb7bdRylBXZTrfEnIkv8xKZSaG\n"
                                          "RqEJKvqXYqcP4Ui46hUmFvk/l62WxDparFHqNNiVq73ENMUgMeJCifElGopjDhoG\n"
                                          "fBizmIn/u/vrZC48rvVQY9ZGCCKVMlckZAzG+4Ag0AC7zspMqRon911A9iL3ufU=\n"
                                          "-----END ENCRYPTED PRIVATE KEY-----\n";

static const char pem_encrypted_sec1[] = "-----BEGIN EC PRIVATE KEY-----\n"
                                         "Proc-Type: 4,ENCRYPTED\n"
                                         "DEK-Info: AES-256-CBC,7502E6770CD75C5234A64600295D3CCF\n"
                                         "\n"
                                         "YX4jrX2q3uGYvo5bxGNbN5T8WU9j3RrZ4lEPqvhDDkQhiBMNRldjOa4XODuG+/6Y\n"
                                         "avHz9cqVD9cZxuxcQeQkYkAF4/2qAJ70psQGqzOXUKfVVVWUIg8vdkFKeAEROa9t\n"
                                         "cRfjRGjicAUMSJtJt41FVPYlyJK5OCHRcnc0fh+QkMA=\n"
                                         "-----END EC PRIVATE KEY-----\n";

static const char pem_ed448[] = "-----BEGIN PRIVATE KEY-----\n"
                                "MEcCAQAwBQYDK2VxBDsEObifGkxj04eLLUjv8iRamRJg6nUryXcwg7MCCt37/mB/\n"
                                "F//bNazwQLAdWATPC57g3b/9HN0FP6wVJw==\n"
                                "-----END PRIVATE KEY-----\n";

static const char pem_ed448_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                       "MEMwBQYDK2VxAzoAhRhq29NpCqnw4HAzYTzuhFU1MxEy12b0jKWnIXmO8W5iEklJ\n"
                                       "vLkXUtfknaZCE3OM2Z7BSgDzcigA\n"
                                       "-----END PUBLIC KEY-----\n";

static const char pem_secp256k1[] = "-----BEGIN EC PRIVATE KEY-----\n"
                                    "MHQCAQEEIMjf7Z06wt0rwZCpsr20ePrA01WwRc9Tmzxsue/2js22oAcGBSuBBAAK\n"
                                    "oUQDQgAESu4Kukcz3AtmkNXvIVAcPBTjiQrrHEWAsBbwF8q1NwYCB3ncxKWbzEcv\n"
                                    "kXmUgPPcW6mcPAWrib1zfpethGdXlA==\n"
                                    "-----END EC PRIVATE KEY-----\n";

static const char pem_secp256k1_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                           "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAESu4Kukcz3AtmkNXvIVAcPBTjiQrrHEWA\n"
                                           "sBbwF8q1NwYCB3ncxKWbzEcvkXmUgPPcW6mcPAWrib1zfpethGdXlA==\n"
                                           "-----END PUBLIC KEY-----\n";

static const char pem_ecdsa_compressed[] = "-----BEGIN PUBLIC KEY-----\n"
                                           "MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADJlI/iTNSYc2SBjo/Oab2e8bAaiFv\n"
                                           "N+BpP5Pth1xE/oU=\n"
                                           "-----END PUBLIC KEY-----\n";

/* The key of RFC 6979 appendix A.2.5, without its public half, and its signature of "sample" with SHA-256: r | s. */
static const char pem_rfc6979[] = "-----BEGIN EC PRIVATE KEY-----\n"
                                  "MDECAQEEIMmvqdhFunUWa1whV2ex1pNOUMPbNuibEnuKYisSD2choAoGCCqGSM49\n"
                                  "AwEH\n"
                                  "-----END EC PRIVATE KEY-----\n";

static const char rfc6979_signature[] =
    "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65"
    "f3e900dbb9aff4064dc4ab2f843acda8";

/* RFC 8410 section 10.3: with an attribute and the public key. */
static const char pem_ed25519_version_2[] = "-----BEGIN PRIVATE KEY-----\n"
                                            "MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n"
                                            "oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\n"
                                            "Z9w7lshQhqowtrbLDFw4rXAxZuE=\n"
                                            "-----END PRIVATE KEY-----\n";

static const char der_ecdsa_explicit[] =
    "3082014b3082010306072a8648ce3d02013081f7020101302c06072a8648ce3d0101022100ffffffff00000001000000"
    "000000000000000000ffffffffffffffffffffffff305b0420ffffffff00000001000000000000000000000000ffffff"
    "fffffffffffffffffc04205ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b031500c49d"
    "360886e704936a6678e1139d26b7819f7e900441046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a139"
    "45d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5022100ffffffff00000000"
    "ffffffffffffffffbce6faada7179e84f3b9cac2fc6325510201010342000426523f89335261cd92063a3f39a6f67bc6"
    "c06a216f37e0693f93ed875c44fe856d86979f5df0ab9832e80a284507316113739dd543c3faac8535b5842436b61b";

/* What OpenSSL signed: "what the peer signs". */
#define SIGNED_BY_OPENSSL "what the peer signs"

static const struct signed_vector {
    const char *text, *key;
    unsigned hash;
    const char *algorithm, *signature;
} signed_vectors[] = {
    {"RSA with SHA2-256", pem_rsa_pkcs8, SIG_SHA2_256, "300d06092a864886f70d01010b0500",
     "278899683b04b45e1ddadb1ecd1d3e5d7dca090d5baec73e886ec144eaafad17ec19e270a86c39481aced089291322af"
     "ff3d3801e9cd0a14791542d4b042ab643f3389e0e482960a5e194fe2394877f259a42f9255d5758027e532570041385c"
     "2952e6a88f40e6ee52c3ee0bebf564457e6d1200a70687a7a2e70d900ae3015a367fe019dbb690d05ef512186479b6e9"
     "8531ef592a71a2e2e73c713abc65750762775dd6e4d800036accc399c4567695f89b678d67dcf21c779d920908184290"
     "bf69113dee2abca6bdbc9aebf391036ab6dcf1ac5673ddac6b84e4bc88a084afc3166f966127589dbc4df0d2aeb66b38"
     "7646b0ba66b2cdb0cbbe2e1f680d8061"},
    {"RSA-PSS with SHA2-256", pem_rsa_pkcs8, SIG_SHA2_256,
     "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d01010830"
     "0d06096086480165030402010500a203020120a303020101",
     "7303804fdb2f18a32c7a4b51c64a83855958b1b394aefe526cb2ec49bd63798bd822f48aa31bd03ef8b5651d46cb2dad"
     "4b5cf68a2fb0bc7ad393d5a2acc9726d0def500f0119b1d2678c3ee3d44b9b3609a1cbbed93b2a1aa9368bf050302118"
     "055d751726930bf05df861350bea09ef18d486fe8222fa4240a783694cc09df0538227af2eeae6f5ba1ec66e5235cdc3"
     "3b99f08fa8aba4e6c4c8144de1e20f116773b88331657bd92a87ee3d609d9f1afaaead8cb2f2ac24e286d2c1c19d300a"
     "84b74e463da312da5fd1ce53649559ec53d7f24016fae60bcb784b57f9e63b816feb6f13540cde7037bd7de7fa348a16"
     "03467cf986abec2da20483c380ed8d34"},
    {"ECDSA with SHA2-256", pem_ecdsa_256_pkcs8, SIG_SHA2_256, "300a06082a8648ce3d040302",
     "3045022063ec10be43216a447200f47308509bf54f00a6f2f06cf67790faddd8632703e6022100b9b917ad2b580ee2ac"
     "a5870cdc1c4369cfb0b6249cf86717582df9782dc26703"},
    {"ECDSA with SHA2-256", pem_ecdsa_384_pkcs8, SIG_SHA2_256, "300a06082a8648ce3d040302",
     "3065023100e2f5e509b6aed4cb5b75761bab32ed399f7dfb10c23d2b6c429ecb726a711d5ab8e5d9ae3d4b8be53cfb6a"
     "4fc284ff8b02307a8947a96d218ed9d3c484e18b08d4af0738ba645fa205cc676f662b04ffafbeb866dbcb570c920de8"
     "ce871958d3555c"},
    {"ECDSA with SHA2-256", pem_ecdsa_521_pkcs8, SIG_SHA2_256, "300a06082a8648ce3d040302",
     "30818802420139930616603dd1ef07d22374348dc7d55cc548150b9344596953519e4ab6ca0e22de61619343a4a3934b"
     "d93a260adef24bb97b425f7b411fe8db3e77348d1ad4cd024201df922fac2e4edc6a0a2c99760c68f4f08ad799195852"
     "342d294fbdda78fd756051fd37e9cb1f1b1c18651bfec2c5527983bfd7051e52f60900db947c9bb438b85a"},
    {"RSA with SHA2-384", pem_rsa_pkcs8, SIG_SHA2_384, "300d06092a864886f70d01010c0500",
     "6957b797c8c134f90680d48456dafac32207ba5c5f6daaf4bb4856b1e3cfecf46183cd47dfb6761cc47a3473103e0362"
     "c54518025b48e209c825afbd1efc54af5c6ee63872aa35880ed97bec9bbc16180904d846023c4eff2ca71a6eca8d3279"
     "9a16288db70fc7d2ffbea92ec88b6e346f363c438265c31776c18d12b2b634e331d63cede37fd54d7c3ec749dcedbdd7"
     "eef159924f258dbdf0955942cc097139c424a3bd88453a03b75b8db8cb65098b611163e9ea13f0c694c4c4b0be4330d2"
     "664f40df6827ea4326c7291addd7b788bd660966219a7206740ab2421cf768c1fc9423eaa324f051f33e57e3026dc59c"
     "7258a14969cc73f6dc07efa171d5425d"},
    {"RSA-PSS with SHA2-384", pem_rsa_pkcs8, SIG_SHA2_384,
     "304606092a864886f70d01010a3039a00f300d06096086480165030402020500a11c301a06092a864886f70d01010830"
     "0d06096086480165030402020500a203020130a303020101",
     "1a77012c8286bcf92ead7b9b43325c2b6304ab9cfc563e4320a9f536c4cced6a68236e4e2a50954d47fef90c72531803"
     "443f54b7f32661879d3a2987ec8e3cd9ce36760d5555b452d09469ce5b3ee7306dca52597a8686bc53bcc6b5611e95ed"
     "480098f03be082103998600ce5fab1e2a0ed54af7ecfbfac372a6affeea642047f5684d707f0aea2aae4e5b69920d241"
     "f95ef1391e2db66b0d90bf202585c8500ea27267e2d167a4b736f3bb001bcd8f0280b223b683a6f3afe3e721d52792de"
     "5191c93715dfa44e7414d34c7a3b348b700375eee94849f1a1980387234d23c65dbcb44ecfc7c062748fb19bb5b24acf"
     "e13dc04d447ca717b4b858c5b96193a7"},
    {"ECDSA with SHA2-384", pem_ecdsa_256_pkcs8, SIG_SHA2_384, "300a06082a8648ce3d040303",
     "3044022047f9a5ec6bdeac1132b3e128e079acaa52983b392438f83a0499386f5f70b1db0220586826d88fc54737f712"
     "bdcf56970d59a81c2205f01c8dba112ed8d62490033c"},
    {"ECDSA with SHA2-384", pem_ecdsa_384_pkcs8, SIG_SHA2_384, "300a06082a8648ce3d040303",
     "306502301949a4a0c4846742656bcb0926a6bfb652c5c716624ab53e00e4266efcee85145673744b38c87c6b6e6ad788"
     "d96f4fda0231009eccd2678b0e769b1e9c9832969112b972fc74d75b00ac7fc8c0c39272f399f6e7e78d14e39dc518a4"
     "0ebc26ce49be78"},
    {"ECDSA with SHA2-384", pem_ecdsa_521_pkcs8, SIG_SHA2_384, "300a06082a8648ce3d040303",
     "308188024201401195e1f15d0f33ceed6e2c207620d37e96d72cf5b640db5e2c56809e3a00d70b8bda3fcd739746cdb8"
     "7a3661aeafc284fc3f0282e50cc35d7a22b9d033d45083024200b2236dce3e7739190fa5f6be2f5a96144df841a73a02"
     "4130397354bc9fb8dc9096ebd8cadcf57f6249124d58a73b86cf9d1b46df9388f86174256b3f6dc6039ab5"},
    {"RSA with SHA2-512", pem_rsa_pkcs8, SIG_SHA2_512, "300d06092a864886f70d01010d0500",
     "1e674223e79ffb7ea3e30beae63f0068fb6cc104209947115bbe9c137723b3dfd6f3c34f46b5477dabe0349558c5975d"
     "19f958434745ec2dfbe8979b2d803cc2cd5a5a9fc018f6670a0f4f3dc65b9f71baf1aadf2f0dcb5272f1f5bdd63b21d0"
     "c1c4e1eacf017363e994ca465ba4e350fb8487694cbb52322fc3bf872daf2cd3e301d5e6136f6057cd5c522a285018f9"
     "7d5aca23403ac16ab54256e119cf209304716f455b186b4713fe18c01f80c72435a13d48a86ce97b74b70065db19467b"
     "cae98654d00d90dff5aebef36690ea21791ab36badb73cd6f8d84c65b9552273e5adb237900bd86447131cdac8371d5a"
     "93135c2f9c4cf38838f4019ee10f89b3"},
    {"RSA-PSS with SHA2-512", pem_rsa_pkcs8, SIG_SHA2_512,
     "304606092a864886f70d01010a3039a00f300d06096086480165030402030500a11c301a06092a864886f70d01010830"
     "0d06096086480165030402030500a203020140a303020101",
     "955a835bb137344811192fc64ad5306eadc2781eccb5318bad344caadf61d7a2da3d0e4c1ddbd8ee6fd2fa8376dbe406"
     "7a7e783fca27d7ffe0761a404173fa278b69aaa348a040c66b8af15bbc0638429adff089e18f7a1e6ba25e176e498210"
     "7edeecab9fa357a94405d32daf26620ca1df3b57b597ad0ab3749eb055b4e76deeee1c64404f751a1405aebd4a19318b"
     "7938bb25b965b1ae733e0b81b01fd7b6b6067bc2736684e0af993114320216733d8a1873158e88a1789052d58bb4e892"
     "bc56c24f5f29f1eaab114054009f907399354ebaf1a45a97a19c6d3154122bf414136d02dbf46d67384ed9688de52525"
     "77bf0e068a51e34d85a3bb660f75d2dd"},
    {"ECDSA with SHA2-512", pem_ecdsa_256_pkcs8, SIG_SHA2_512, "300a06082a8648ce3d040304",
     "304402202c51a37f9662ad276523c02cfbede8439ac83eebf357f5e6c60e92447975f6a60220429c9672a838dfe5390e"
     "75e06e155ad7f43b24569d911d63d33d9a05774b35a3"},
    {"ECDSA with SHA2-512", pem_ecdsa_384_pkcs8, SIG_SHA2_512, "300a06082a8648ce3d040304",
     "306402301ff156a73082080a86ff25cfa4561e8d752a2df38a71197f0474d09b80e1840a70a4434dd56781d68badf2ed"
     "c034f9af0230264e932e7b458b44bb2c0a03a932b5008b1cb2c0b5de0c6b9f868ffa8de9d10d5764d02c2d0763a33ef3"
     "07e8c4617989"},
    {"ECDSA with SHA2-512", pem_ecdsa_521_pkcs8, SIG_SHA2_512, "300a06082a8648ce3d040304",
     "308188024200cd18a4fb5ca46eb1b3b867af0c6951006020f07221ad03d0b5cf3d0a4fb2251ab44a822397a6400213a4"
     "7843e28f74a9e939aed4cd647c100968bbbdb949ba065f024201579d3e8ecc8b8c9619011b7a64ed5a915f005e11624a"
     "2b8f8ba85d19d673fcaf4e6d6cb1672b86fb9b9dac08a596a4dcce266a2889014e56ccf5191d7ed9073a21"},
    {"RSA-PSS with SHA2-256", pem_rsa_pkcs8, SIG_SHA2_256,
     "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d01010830"
     "0d06096086480165030402010500a203020114a303020101",
     "4ab410d8e91364dcced9a71e1ddf6d12c1e1e4d5c3139ba93714449d1f723d3249c7e5f666044c605d2efa7d2bc637ba"
     "7b1c7fa84a0ec48ac319647f08e3df5081c51d6b0bbac4b80627aa3f928afc390e6616316a61ebe0bbfe94e1c6539ef8"
     "aea5fb19f7a1fcb58f874da90d2599e2ff7d45f3bc6ed0cae365c414353d32069f0df015326c825b52fa65b123fc902f"
     "3f347a00e3cc83b5de51cb6a5923850c69178336b556e1555c3111496df2d4aeeb9dce14db6b98ca7995fdd419082ed5"
     "998d5ace7b9878f0a91ef3b179555a1426f5bbe4c744b510f77d03a2acade8062c99639640979dc7ad18d3e29b441b07"
     "586422e487ff4f90e1dd56b05e516655"},
    {"Ed25519", pem_ed25519_pkcs8, SIG_IDENTITY, "300506032b6570",
     "24efc980fc6a803e0542fdca0d11ef5b09795a64eab653858c7c53cd6de80d8c135c94eb714655fe417f5e965a9cb918"
     "d00ff61e150dc57e8280abbb42c3eb0d"},
};

static const char rsa_sha1_signature[] =
    "99309b3cc3d6457a51326458439f4ff3d6c3d033dc4aaab6f7fd9c845285b35d387ba9410fbba454da3c269d55b6ecfa"
    "3607c30dae7984b8ac4df9261fef245af58ce0db7cfae5f5a0c0a0125bfe8d812ef48c9bfec245d626e8d85c5cc5b25d"
    "0bb97a8ebc74621d06f0596f2ad611770d8d5b671c92155769ecfccde3e62a09b59051357c2ff01f941621e20babef45"
    "8872b1faeaa528bbaffbed0ab2c2a6d38d0ffbe8e3cdef8162c11efd44d8c5e1caf71b01b7ed778b1f997e442119a054"
    "f7abd24d6d3d01b4873934e8ef1a91c4b87e521621eba8039ade7e16c0ad2e9e92e1a39337710b833d77142efee2debe"
    "6429e4914d29ee101d6f1a552a9c9a10";

static const char pss_sha1_signature[] =
    "4a8a6af19217eccd6c5e47fee0ca80f338c277a53cd1446bab2610301e2f1015bb6f4f4ccd719755a5b96deb38a88166"
    "836f78a190413e273689c4a7b419300cf3618e371257faf5d49504f1583effcaf87f661a21f063f3cc9f6569308c6100"
    "3e818e735c90779f7a26a60c0b142c27e7a2dbd26ab979c3a8ddb9cba72aa99bde471ff5b5cba6037488cd41959f1997"
    "44b393d8680f9a20d8cd21ec5f3014682eaba027eaea777a755d28bc2d0a8b6f995197e27889eb1ffd91e885b79db8e5"
    "dc7ff91fc3c3bb05717e9ea2350c6f41e16a0723133b8923132b2b66e7fd4165cf3bcb181bad818374b461fade45786c"
    "b8ec7a9dcde174301301d50584ee0a68";

static const char pss_salt33_signature[] =
    "6c87264af42930b24ca7775074c77a38202ed93d566bcd69e934ade749e158f9749ecebfe7e152c050592aa5747459de"
    "87a3799021f7748cd973a6df37a0a4b8ce8c634f2c8bdebbb33c784da17a3e9450598b6f23e213d591e5456cf05b645b"
    "c00c0e8df57d97d5b66a6e40177957ec8b0c2ce7fdb2499025c7672c01bd9b914ce05843d770c110b377a98e4df488d5"
    "2d7d149b3d9903e747b133be7b60a7ae1d2a23d2905306d72c02a45b481c053fa8c7fc7c2c24a1da2ab4b3ba268777aa"
    "231f4adbe3c34d367c479d06efe07fb28be4dbae0979b57b298361120fd3b7824085b9d824e996111e672b7b0efecaaa"
    "6fb7c3b7661ef93beae810cc3d195033";

static const char ecdsa_sha1_signature[] =
    "3045022100e6ca68824fa2ab8cfa3180d15b1018b34b9dad0e5990e8388aacf06d6997769a022004b4320b1d29b53df4"
    "59eb47ad5893ea79b3d7bbcb746953a7451c86e6e10794";

static const struct ed25519_vector {
    const char *name, *seed, *public, *message, *signature;
} ed25519_vectors[] = {
    {"1", "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
     "d25bf5f0595bbe24655141438e7a100b"},
    {"2", "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
     "387b2eaeb4302aeeb00d291612bb0c00"},
    {"3", "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
     "4a7c15e9716ed28dc027beceea1ec40a"},
    {"SHA(abc)", "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
     "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"
     "454d4423643ce80e2a9ac94fa54ca49f",
     "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
     "3dca179c138ac17ad9bef1177331a704"},
};

/* Of "abc": x | y, r | s. */
static const struct ecdsa_vector {
    unsigned method;
    const char *head, *public, *signature; /* head: of the SubjectPublicKeyInfo */
} ecdsa_vectors[] = {
    {9, "3059301306072a8648ce3d020106082a8648ce3d03010703420004",
     "2442a5cc0ecd015fa3ca31dc8e2bbc70bf42d60cbca20085e0822cb04235e9706fc98bd7e50211a4a27102fa3549df79"
     "ebcb4bf246b80945cddfe7d509bbfd7d",
     "cb28e0999b9c7715fd0a80d8e47a77079716cbbf917dd72e97566ea1c066957c86fa3bb4e26cad5bf90b7f81899256ce"
     "7594bb1ea0c89212748bff3b3d5b0315"},
    {10, "3076301006072a8648ce3d020106052b8104002203620004",
     "96281bf8dd5e0525ca049c048d345d3082968d10fedf5c5aca0c64e6465a97ea5ce10c9dfec21797415710721f437922"
     "447688ba94708eb6e2e4d59f6ab6d7edff9301d249fe49c33096655f5d502fad3d383b91c5e7edaa2b714cc99d5743ca",
     "fb017b914e29149432d8bac29a514640b46f53ddab2c69948084e2930f1c8f7e08e07c9c63f2d21a07dcb56a6af56eb3"
     "b263a1305e057f984d38726a1b46874109f417bca112674c528262a40a629af1cbb9f516ce0fa7d2ff630863a00e8b9f"},
    {11, "30819b301006072a8648ce3d020106052b810400230381860004",
     "0151518f1af0f563517edd5485190df95a4bf57b5cba4cf2a9a3f6474725a35f7afe0a6ddeb8bedbcd6a197e592d4018"
     "8901cecd650699c9b5e456aea5add19052a8006f3b142ea1bfff7e2837ad44c9e4ff6d2d34c73184bbad90026dd5e6e8"
     "5317d9df45cad7803c6c20035b2f3ff63aff4e1ba64d1c077577da3f4286c58f0aeae643",
     "0154fd3836af92d0dca57dd5341d3053988534fde8318fc6aaaab68e2e6f4339b19f2f281a7e0b22c269d93cf8794a92"
     "78880ed7dbb8d9362caeacee544320552251017705a7030290d1ceb605a9a1bb03ff9cdd521e87a696ec926c8c10c836"
     "2df4975367101f67d1cf9bccbf2f3d239534fa509e70aac851ae01aac68d62f866472660"},
};

#endif
