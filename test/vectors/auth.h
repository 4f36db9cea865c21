/* Made by auth.sh, for tests alone: these keys are public. Valid from November 2026 for 82 years. */

#define VECTOR_A_OTHER_KEY                                               \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgq1SvaKjmZKMA7VyZ\n" \
    "GUzLwlnQgfU2f0FRIdKKdX+1ODOhRANCAATQImS9xJn31uEaz52hl0Eby7DAElFV\n" \
    "2b8S4/jGz1AQ5EJuDRVANa6k/Y6zk0bXfgnLkCM8Quhrx6i14THZmaa5\n"         \
    "-----END PRIVATE KEY-----\n"

#define VECTOR_A_P256_KEY                                                \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3gXzbEMqJ6SrGWLb\n" \
    "HgXrW46xCNA3zufuvQ2/7mVdkwuhRANCAAQM2L312riS30+oIDHraBHlXhlpOVtN\n" \
    "lp47hh07q6JBHQu7S9p4Q8GPz6Ru1x+Wy9HMtjoNzwUUXbiui2/rAiNN\n"         \
    "-----END PRIVATE KEY-----\n"

#define VECTOR_A_P384_KEY                                                \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDDegNez/qPXIXtmF/xG\n" \
    "7dRcJok13MU5Z1Lz5SmrvijW68o/KErYEM5fLqGkA+ULrxShZANiAATJpIcixwBR\n" \
    "WqPqBOT8wPvVO0vBb8Unu4o2VcqTNT5KCniGBUTK4L7E7gCR3KnTEUbJophWtWhB\n" \
    "ezvRQp76SIgF3/bQb4OmPVghHXvBT71L1w8bkCytDTVvnBb5YTanq64=\n"         \
    "-----END PRIVATE KEY-----\n"

#define VECTOR_A_P521_KEY                                                \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBiFaIFUXC9lC9eXQV\n" \
    "uIviidNUzN9iSyh6YmZNQ/xihL0Gj05SEi83dJz8KWrhcAApFMR53FQ5qZwDb6RJ\n" \
    "j+pXBAShgYkDgYYABAACjK7sx1OGyLXNkGNDqL/1L4JbqUMA5H9YopcXujfY3oXC\n" \
    "RCYg+uy4GRnLUsNJnjK94lpp2pdmzHb5S2jcdbgrKAD39uNqAIGZ6msKjyQgqtDb\n" \
    "9gB7wdIt+7LjvowsJx32KfxWimgAqfASivBpWfY+6sYIu3RifYSzU4+CiYCSsp/o\n" \
    "Jw==\n"                                                             \
    "-----END PRIVATE KEY-----\n"

#define VECTOR_A_RSA_KEY                                                 \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDKOp0llIZcx8pw\n" \
    "KvT+SaEht4g3xjl55jjQg0wqYX7t81GqP9BaeGb80dl9suIGsuXuFO/kzS4xYtea\n" \
    "F3WF6GHDRzUvukpzo48oAjTKTzHmp2btrMosWk9CFdu2YlVhuYgzvq8d5BfWdACD\n" \
    "Qu++uxEPIhPej5Vf62B/gwXRcrg3VvXmtH2CXMHVblvaTvpPsw27lM4EclSiWBw6\n" \
    "PrN0iVb1EFaXSR7Du1t8OykA8VesSv8a07VbYl4K+rSJW1uF4QfWcjuO/HeTemIB\n" \
    "hJodoU/5gvDRhM03+DN8Qj3zqHvzcJSKolxEqrhsaBKw3aFA9lSzyJxqGIttJlip\n" \
    "Wq6xJ6kHAgMBAAECggEAI2PgjmwQm3oHTlvmJf4iqbDhsMkK0+9bL/paQOxw9xlm\n" \
    "yEGEp+B8PXBH/Hxqm7uBC4o0dTkHBXODwZ6rXXTObwsuHp0eXGBaNCk2rdTwKapQ\n" \
    "E/XyJ5LiXfFPUvqgcIq0cEHFiZiaJ1iDonT7WciI8roG+iLshC2/5HC8euv1mxFY\n" \
    "Mdl3pMLTGgWzdFoNuXe/xy/vpoyF2miGgkbuO0Wiq5cBkMuvuqk/bUG0C5JkXvCv\n" \
    "z794jh7neKW/o3vgA9vzWXDjkiD6XC3SO1Bg/Nah8M5xf1t2voSEwHl+nc+WtObC\n" \
    "XfwYiwjvkhIR3ujdXN2laoz5UdPDEypPcT/nFpDo8QKBgQDkgoBtuLKWLdvIuUpQ\n" \
    "4IesJCrIyflh9YlqCvNiNa8xkENM9e0JHxmZEyGH6dyuqSYWYRZeIV0PBEVLURlZ\n" \
    "VSkrSsTAnQuz53mlQxyX4Zm+NhTm+TFVAkUWaNmAwBqlwmrL0PEbqYu+SkOqppTL\n" \
    "tEZusBUqq2FmTi4u9UVr1MA97wKBgQDijruEXY2xI0e4vR7GmKGh8catvc46SE9E\n" \
    "XqCYPoUxiAffVhwfgFDpIFSjrFqjUCDOu/FuZ63omt7r+KGkoF5qnDwLYlZE/xmd\n" \
    "tupEgDTdHANy3rXynmbb4E+PFEzNz2b8eKN379dKbAhqyT81LczXs8ht0ie8CP8z\n" \
    "6fsMeffeaQKBgQDBRsBqDba/37nuZQq+rasTpuOpQWx1tsCruOdzQgUU3viNt9Tt\n" \
    "yihUmSHbW6sU8G0OsL/CjmWvteUGd2oBbU6NF4ijgjHL0RXK+qDMtjzb7dJwKoXX\n" \
    "aTwWYEjX5aSkX3UFP40v4JAaO6ZQSOXCBpEsPjMpDBwt9CKMBVjag/C2cQKBgAQb\n" \
    "WkLX/02Kui4bH4eyFJv+6f8URbzAus8eeALKf1eag6oEwZXAmbbgIyikYzA6r52P\n" \
    "wpyhvIFO7WORqjx1u8Bq/JuoOLAff7NgMXb0bADmFRnr95hiTrMFqeuKDqpcbB1/\n" \
    "glcWPezXcH+fDkpEfkYauDNlb9r0vsuOHkLnoxqhAoGAVFYLYD/xnvaGAlVfKSvl\n" \
    "W+KyqLMMMIbOaq1dmGcYTtBly6DLDN9LRfZF9aJZdj+C5IgXlE6EDJfzlqQWlgcJ\n" \
    "uNbOLjcM+1gxjdOmbE1+Vn0DmLKRyXMiBWH0+JSMMiTPp/s7K9THtr4CYu/ROk9O\n" \
    "YvkTWxHAX9yyyDqXXoWwaYE=\n"                                         \
    "-----END PRIVATE KEY-----\n"

#define VECTOR_A_SUB_KEY                                                 \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggu3W+oCkcNmdDj+Z\n" \
    "sg0aDRaC7GRwzrTaU/CIIh4YROyhRANCAASgkqeb9hWAmI/8EarbFOXXjrTKVkrW\n" \
    "g9Xxp1xmXqrwuhHNbgQ1x2D2TuZ0tcxx3xqL0MC0tabIomqetf6ktxam\n"         \
    "-----END PRIVATE KEY-----\n"

#define VECTOR_B_P256_KEY                                                \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgIcTN/tIexXa7GCtw\n" \
    "gC97lO/lZWjY8TMMNhT8ProFih+hRANCAARR5AjszpYy8mUCdmE6zjXzwmxN80GE\n" \
    "JQfJhXQNwJs+/2Yzrf01ZoZHtAfwh+BkQwcamy+Kge5NGPsjoN9u+Rbf\n"         \
    "-----END PRIVATE KEY-----\n"

#define VECTOR_CAROL_KEY                                                 \
    "-----BEGIN PRIVATE KEY-----\n"                                      \
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg7hiqydijukkU0VOS\n" \
    "V2jgML8ODmTN1LYO8VYam/yKBXKhRANCAAQUrtkUuTlGhQeOIIKSMqWjOFCgLzlA\n" \
    "5EU06jvHYLdsigwpel9iofV7YVs9PcxsMcF0Ksh/Tqfvsy6KOfYFfX2T\n"         \
    "-----END PRIVATE KEY-----\n"

#define VECTOR_A_OTHER_CRT                                               \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIB0DCCAXagAwIBAgIUUavQj2VhckJ8P3wKpy1KGyRia44wCgYIKoZIzj0EAwIw\n" \
    "MTELMAkGA1UEBhMCQ0gxEjAQBgNVBAoMCWFkaXQgdGVzdDEOMAwGA1UEAwwFb3Ro\n" \
    "ZXIwIBcNMjYxMTIxMTE0NjMzWhgPMjEwOTAxMTAxMTQ2MzNaMDMxCzAJBgNVBAYT\n" \
    "AkNIMRIwEAYDVQQKDAlhZGl0IHRlc3QxEDAOBgNVBAMMB2Ffb3RoZXIwWTATBgcq\n" \
    "hkjOPQIBBggqhkjOPQMBBwNCAATQImS9xJn31uEaz52hl0Eby7DAElFV2b8S4/jG\n" \
    "z1AQ5EJuDRVANa6k/Y6zk0bXfgnLkCM8Quhrx6i14THZmaa5o2gwZjAOBgNVHQ8B\n" \
    "Af8EBAMCB4AwFAYDVR0RBA0wC4IJYS5leGFtcGxlMB0GA1UdDgQWBBSyph2B6Pto\n" \
    "rmI6U6JWsc55PiTOXTAfBgNVHSMEGDAWgBQFc8pnARQzdFgspVu/lkg5t+f0vjAK\n" \
    "BggqhkjOPQQDAgNIADBFAiBz+TI/xn/S16C+q3fxGY2SICymSLYa5oVWMZV7xVj3\n" \
    "ugIhANmZPf4inMfAecKbsQPvBTXF5X7blGQVjmZCA79L2vJs\n"                 \
    "-----END CERTIFICATE-----\n"

#define VECTOR_A_P256_CRT                                                \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIBzTCCAXOgAwIBAgITL/Cru4WcDw18NL+QqHk9ogO6nTAKBggqhkjOPQQDAjAw\n" \
    "MQswCQYDVQQGEwJDSDESMBAGA1UECgwJYWRpdCB0ZXN0MQ0wCwYDVQQDDARyb290\n" \
    "MCAXDTI2MTEyMTExNDYzM1oYDzIxMDkwMTEwMTE0NjMzWjAyMQswCQYDVQQGEwJD\n" \
    "SDESMBAGA1UECgwJYWRpdCB0ZXN0MQ8wDQYDVQQDDAZhX3AyNTYwWTATBgcqhkjO\n" \
    "PQIBBggqhkjOPQMBBwNCAAQM2L312riS30+oIDHraBHlXhlpOVtNlp47hh07q6JB\n" \
    "HQu7S9p4Q8GPz6Ru1x+Wy9HMtjoNzwUUXbiui2/rAiNNo2gwZjAOBgNVHQ8BAf8E\n" \
    "BAMCB4AwFAYDVR0RBA0wC4IJYS5leGFtcGxlMB0GA1UdDgQWBBSvr3joWDgeO56c\n" \
    "DaS3QI8jRX/6GTAfBgNVHSMEGDAWgBR93dQhkrL87uxWQcnBQt1ga78kQTAKBggq\n" \
    "hkjOPQQDAgNIADBFAiAt/dwKg8f3XypnEQtB6YvASgcDBOKAr3Q1hrY6Bugn7wIh\n" \
    "AMBCgMbyYmQKISAYH5d0Cvfo31zGaIFqMKclTWzcVS/u\n"                     \
    "-----END CERTIFICATE-----\n"

#define VECTOR_A_P384_CRT                                                \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIB6jCCAZCgAwIBAgITL/Cru4WcDw18NL+QqHk9ogO6njAKBggqhkjOPQQDAjAw\n" \
    "MQswCQYDVQQGEwJDSDESMBAGA1UECgwJYWRpdCB0ZXN0MQ0wCwYDVQQDDARyb290\n" \
    "MCAXDTI2MTEyMTExNDYzM1oYDzIxMDkwMTEwMTE0NjMzWjAyMQswCQYDVQQGEwJD\n" \
    "SDESMBAGA1UECgwJYWRpdCB0ZXN0MQ8wDQYDVQQDDAZhX3AzODQwdjAQBgcqhkjO\n" \
    "PQIBBgUrgQQAIgNiAATJpIcixwBRWqPqBOT8wPvVO0vBb8Unu4o2VcqTNT5KCniG\n" \
    "BUTK4L7E7gCR3KnTEUbJophWtWhBezvRQp76SIgF3/bQb4OmPVghHXvBT71L1w8b\n" \
    "kCytDTVvnBb5YTanq66jaDBmMA4GA1UdDwEB/wQEAwIHgDAUBgNVHREEDTALgglh\n" \
    "LmV4YW1wbGUwHQYDVR0OBBYEFDVzzrZuP5DrauAf/9SUBWj9w43MMB8GA1UdIwQY\n" \
    "MBaAFH3d1CGSsvzu7FZBycFC3WBrvyRBMAoGCCqGSM49BAMCA0gAMEUCIQCGF6YX\n" \
    "xQVh6NgtsAg6ki/U/8XR/sNAJF/ttNL5IjTZeQIgLFYlUji87xqXQ2BAgVKA1av2\n" \
    "sGSfvo7j81VgXtZxhJw=\n"                                             \
    "-----END CERTIFICATE-----\n"

#define VECTOR_A_P521_CRT                                                \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIICDzCCAbagAwIBAgITL/Cru4WcDw18NL+QqHk9ogO6nzAKBggqhkjOPQQDAjAw\n" \
    "MQswCQYDVQQGEwJDSDESMBAGA1UECgwJYWRpdCB0ZXN0MQ0wCwYDVQQDDARyb290\n" \
    "MCAXDTI2MTEyMTExNDYzM1oYDzIxMDkwMTEwMTE0NjMzWjAyMQswCQYDVQQGEwJD\n" \
    "SDESMBAGA1UECgwJYWRpdCB0ZXN0MQ8wDQYDVQQDDAZhX3A1MjEwgZswEAYHKoZI\n" \
    "zj0CAQYFK4EEACMDgYYABAACjK7sx1OGyLXNkGNDqL/1L4JbqUMA5H9YopcXujfY\n" \
    "3oXCRCYg+uy4GRnLUsNJnjK94lpp2pdmzHb5S2jcdbgrKAD39uNqAIGZ6msKjyQg\n" \
    "qtDb9gB7wdIt+7LjvowsJx32KfxWimgAqfASivBpWfY+6sYIu3RifYSzU4+CiYCS\n" \
    "sp/oJ6NoMGYwDgYDVR0PAQH/BAQDAgeAMBQGA1UdEQQNMAuCCWEuZXhhbXBsZTAd\n" \
    "BgNVHQ4EFgQUAUeTxXawtHT//R7W8dXWrTn6nMkwHwYDVR0jBBgwFoAUfd3UIZKy\n" \
    "/O7sVkHJwULdYGu/JEEwCgYIKoZIzj0EAwIDRwAwRAIgaLyPursh6ApN29MJVPyd\n" \
    "BBIeL0yX1drFp+Fg4Z5OGWgCIHvUhwmH/Gypwy+2ArgWUIQYyv+gkif+1Ube+6mQ\n" \
    "PgnX\n"                                                             \
    "-----END CERTIFICATE-----\n"

#define VECTOR_A_RSA_CRT                                                 \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIClzCCAj2gAwIBAgITL/Cru4WcDw18NL+QqHk9ogO6nDAKBggqhkjOPQQDAjAw\n" \
    "MQswCQYDVQQGEwJDSDESMBAGA1UECgwJYWRpdCB0ZXN0MQ0wCwYDVQQDDARyb290\n" \
    "MCAXDTI2MTEyMTExNDYzM1oYDzIxMDkwMTEwMTE0NjMzWjAxMQswCQYDVQQGEwJD\n" \
    "SDESMBAGA1UECgwJYWRpdCB0ZXN0MQ4wDAYDVQQDDAVhX3JzYTCCASIwDQYJKoZI\n" \
    "hvcNAQEBBQADggEPADCCAQoCggEBAMo6nSWUhlzHynAq9P5JoSG3iDfGOXnmONCD\n" \
    "TCphfu3zUao/0Fp4ZvzR2X2y4gay5e4U7+TNLjFi15oXdYXoYcNHNS+6SnOjjygC\n" \
    "NMpPMeanZu2syixaT0IV27ZiVWG5iDO+rx3kF9Z0AINC7767EQ8iE96PlV/rYH+D\n" \
    "BdFyuDdW9ea0fYJcwdVuW9pO+k+zDbuUzgRyVKJYHDo+s3SJVvUQVpdJHsO7W3w7\n" \
    "KQDxV6xK/xrTtVtiXgr6tIlbW4XhB9ZyO478d5N6YgGEmh2hT/mC8NGEzTf4M3xC\n" \
    "PfOoe/NwlIqiXESquGxoErDdoUD2VLPInGoYi20mWKlarrEnqQcCAwEAAaNoMGYw\n" \
    "DgYDVR0PAQH/BAQDAgeAMBQGA1UdEQQNMAuCCWEuZXhhbXBsZTAdBgNVHQ4EFgQU\n" \
    "mMYBbW6gZAmobXDc5a31j5rSJoMwHwYDVR0jBBgwFoAUfd3UIZKy/O7sVkHJwULd\n" \
    "YGu/JEEwCgYIKoZIzj0EAwIDSAAwRQIhAMq5g0aHAsbQq8M8YMjVx/ndV2y3arO3\n" \
    "0RXISJpddkfWAiBnAIXS+iLslY6vM5Xg6rPAE1pSuwW9vVhqVPlz9Huy7w==\n"     \
    "-----END CERTIFICATE-----\n"

#define VECTOR_A_SUB_CRT                                                 \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIB7TCCAXKgAwIBAgIUdXTL2eu/ie68OStAHVoaBu1CDD0wCgYIKoZIzj0EAwIw\n" \
    "LzELMAkGA1UEBhMCQ0gxEjAQBgNVBAoMCWFkaXQgdGVzdDEMMAoGA1UEAwwDc3Vi\n" \
    "MCAXDTI2MTEyMTExNDYzM1oYDzIxMDkwMTEwMTE0NjMzWjAxMQswCQYDVQQGEwJD\n" \
    "SDESMBAGA1UECgwJYWRpdCB0ZXN0MQ4wDAYDVQQDDAVhX3N1YjBZMBMGByqGSM49\n" \
    "AgEGCCqGSM49AwEHA0IABKCSp5v2FYCYj/wRqtsU5deOtMpWStaD1fGnXGZeqvC6\n" \
    "Ec1uBDXHYPZO5nS1zHHfGovQwLS1psiiap61/qS3FqajaDBmMA4GA1UdDwEB/wQE\n" \
    "AwIHgDAUBgNVHREEDTALgglhLmV4YW1wbGUwHQYDVR0OBBYEFJ5SFKrpdYorUNw+\n" \
    "fQ9mdZkMDcwlMB8GA1UdIwQYMBaAFC4OFG6dGMdAsh7kxEqsG/Z1uwd/MAoGCCqG\n" \
    "SM49BAMCA2kAMGYCMQChOZuhhkPz1zuTh33IzJHiAaQnEEk/QBhZNMFpSBf44Hw1\n" \
    "zHTjn06f9XBktZldjn8CMQDjIrxyWgThYFJzZtLPKC6lLt76WCXY0nEUWvXxcQ6G\n" \
    "T6rlS+UJPBmk5J8XfRKWd8k=\n"                                         \
    "-----END CERTIFICATE-----\n"

#define VECTOR_B_P256_CRT                                                \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIBzTCCAXOgAwIBAgITL/Cru4WcDw18NL+QqHk9ogO6oDAKBggqhkjOPQQDAjAw\n" \
    "MQswCQYDVQQGEwJDSDESMBAGA1UECgwJYWRpdCB0ZXN0MQ0wCwYDVQQDDARyb290\n" \
    "MCAXDTI2MTEyMTExNDYzM1oYDzIxMDkwMTEwMTE0NjMzWjAyMQswCQYDVQQGEwJD\n" \
    "SDESMBAGA1UECgwJYWRpdCB0ZXN0MQ8wDQYDVQQDDAZiX3AyNTYwWTATBgcqhkjO\n" \
    "PQIBBggqhkjOPQMBBwNCAARR5AjszpYy8mUCdmE6zjXzwmxN80GEJQfJhXQNwJs+\n" \
    "/2Yzrf01ZoZHtAfwh+BkQwcamy+Kge5NGPsjoN9u+Rbfo2gwZjAOBgNVHQ8BAf8E\n" \
    "BAMCB4AwFAYDVR0RBA0wC4IJYi5leGFtcGxlMB0GA1UdDgQWBBTkAwW5V8M99/I8\n" \
    "yh2pLtrfbp3WXDAfBgNVHSMEGDAWgBR93dQhkrL87uxWQcnBQt1ga78kQTAKBggq\n" \
    "hkjOPQQDAgNIADBFAiAJkh4GSC3sh42Lgfj3uvw8G1/cjpg4fVN5v8ul+3FVIAIh\n" \
    "ANxjPBgZzxvN6T5FMJCGiUcNJayWykHpfB2Fie77mMXI\n"                     \
    "-----END CERTIFICATE-----\n"

#define VECTOR_CAROL_CRT                                                 \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIB0TCCAXagAwIBAgITL/Cru4WcDw18NL+QqHk9ogO6oTAKBggqhkjOPQQDAjAw\n" \
    "MQswCQYDVQQGEwJDSDESMBAGA1UECgwJYWRpdCB0ZXN0MQ0wCwYDVQQDDARyb290\n" \
    "MCAXDTI2MTEyMTExNDYzM1oYDzIxMDkwMTEwMTE0NjMzWjAxMQswCQYDVQQGEwJD\n" \
    "SDESMBAGA1UECgwJYWRpdCB0ZXN0MQ4wDAYDVQQDDAVjYXJvbDBZMBMGByqGSM49\n" \
    "AgEGCCqGSM49AwEHA0IABBSu2RS5OUaFB44ggpIypaM4UKAvOUDkRTTqO8dgt2yK\n" \
    "DCl6X2Kh9XthWz09zGwxwXQqyH9Op++zLoo59gV9fZOjbDBqMA4GA1UdDwEB/wQE\n" \
    "AwIHgDAYBgNVHREEETAPgg1jYXJvbC5leGFtcGxlMB0GA1UdDgQWBBTd85AhFu5H\n" \
    "KwwE3gVZTvvV0898MDAfBgNVHSMEGDAWgBR93dQhkrL87uxWQcnBQt1ga78kQTAK\n" \
    "BggqhkjOPQQDAgNJADBGAiEA3V6mVMjmYbJyWCB1JkCtmM49O7lgOuAwZXNlSKVj\n" \
    "fzYCIQCpa9mJNG9i+r9A8Qa/5BBzMRkgrCHIz9qxYTSjcBoe4Q==\n"             \
    "-----END CERTIFICATE-----\n"

#define VECTOR_OTHER_CRT                                                 \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIBpzCCAU6gAwIBAgIUVxNB8HtwPKfgOXrqg81rAuOWdmIwCgYIKoZIzj0EAwIw\n" \
    "MTELMAkGA1UEBhMCQ0gxEjAQBgNVBAoMCWFkaXQgdGVzdDEOMAwGA1UEAwwFb3Ro\n" \
    "ZXIwIBcNMjYxMTIxMTE0NjMyWhgPMjEwOTAxMTAxMTQ2MzJaMDExCzAJBgNVBAYT\n" \
    "AkNIMRIwEAYDVQQKDAlhZGl0IHRlc3QxDjAMBgNVBAMMBW90aGVyMFkwEwYHKoZI\n" \
    "zj0CAQYIKoZIzj0DAQcDQgAEdEzpO1rmmkdkZPCyiUxgXfj2t027bByURZTIfVcJ\n" \
    "I7yHI7NrPohjBwsx6y+XGm12NnMU05hlRU2f3c7VWXu52KNCMEAwDwYDVR0TAQH/\n" \
    "BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAQYwHQYDVR0OBBYEFAVzymcBFDN0WCylW7+W\n" \
    "SDm35/S+MAoGCCqGSM49BAMCA0cAMEQCIGqygX0LlGiCjsrKjN/dIOeFvzbW1+IF\n" \
    "QUx6zWvgJrjEAiBLIg7h0mEDzhmslDUW4Mk0AyxeqfIUc4HEALzkUDv//w==\n"     \
    "-----END CERTIFICATE-----\n"

#define VECTOR_ROOT_CRT                                                  \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIBpTCCAUygAwIBAgIUdUBs6MCdXXClEuUQFcybMsvBwXkwCgYIKoZIzj0EAwIw\n" \
    "MDELMAkGA1UEBhMCQ0gxEjAQBgNVBAoMCWFkaXQgdGVzdDENMAsGA1UEAwwEcm9v\n" \
    "dDAgFw0yNjExMjExMTQ2MzJaGA8yMTA5MDExMDExNDYzMlowMDELMAkGA1UEBhMC\n" \
    "Q0gxEjAQBgNVBAoMCWFkaXQgdGVzdDENMAsGA1UEAwwEcm9vdDBZMBMGByqGSM49\n" \
    "AgEGCCqGSM49AwEHA0IABOrPr3biykzUehWbi5bsBXI9TZsizXR73sUStVHgughL\n" \
    "8SJeYPOd4wQ6vOXiVTA5PbcqfrDOUb766MQDDlsbDEujQjBAMA8GA1UdEwEB/wQF\n" \
    "MAMBAf8wDgYDVR0PAQH/BAQDAgEGMB0GA1UdDgQWBBR93dQhkrL87uxWQcnBQt1g\n" \
    "a78kQTAKBggqhkjOPQQDAgNHADBEAiBjw6VBzJMk1Mr2QcZPp5vTczpXqxXAoDkN\n" \
    "6ibEpf/ACwIgVNRrhJLUlN+XpUZg5k+jclaMW8sh7QOeeKzuZbZdlic=\n"         \
    "-----END CERTIFICATE-----\n"

#define VECTOR_SUB_CRT                                                   \
    "-----BEGIN CERTIFICATE-----\n"                                      \
    "MIIB4jCCAYigAwIBAgITL/Cru4WcDw18NL+QqHk9ogO6mzAKBggqhkjOPQQDAjAw\n" \
    "MQswCQYDVQQGEwJDSDESMBAGA1UECgwJYWRpdCB0ZXN0MQ0wCwYDVQQDDARyb290\n" \
    "MCAXDTI2MTEyMTExNDYzMloYDzIxMDkwMTEwMTE0NjMyWjAvMQswCQYDVQQGEwJD\n" \
    "SDESMBAGA1UECgwJYWRpdCB0ZXN0MQwwCgYDVQQDDANzdWIwdjAQBgcqhkjOPQIB\n" \
    "BgUrgQQAIgNiAARol4UtV7BdjQJ94jmBe60ompTgHKEXaSp7IgrWqB5zSMtKxEwe\n" \
    "DnjmFeKxazFsA0CzStRJvFUKrmQyP/Xn3j1ZTYSCzhh6Sz3RxPqzHQB86UrgFrQy\n" \
    "MocbSSgNYIrhjcyjYzBhMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgEG\n" \
    "MB0GA1UdDgQWBBQuDhRunRjHQLIe5MRKrBv2dbsHfzAfBgNVHSMEGDAWgBR93dQh\n" \
    "krL87uxWQcnBQt1ga78kQTAKBggqhkjOPQQDAgNIADBFAiA0+IaDWscj+7WzPRwv\n" \
    "8koN+nkJnD5eAjYFuZUfIvKVMQIhAPUhURqrwpGB7KntrTmWyYJwPAPrlYL9UV8V\n" \
    "KmPO8Ivb\n"                                                         \
    "-----END CERTIFICATE-----\n"

#define VECTOR_ROOT_CRL                                                  \
    "-----BEGIN X509 CRL-----\n"                                         \
    "MIHzMIGaAgEBMAoGCCqGSM49BAMCMDAxCzAJBgNVBAYTAkNIMRIwEAYDVQQKDAlh\n" \
    "ZGl0IHRlc3QxDTALBgNVBAMMBHJvb3QXDTI2MTEyMTExNDYzM1oYDzIxMDkwMTEw\n" \
    "MTE0NjMzWjAmMCQCEy/wq7uFnA8NfDS/kKh5PaIDup4XDTI2MTEyMTExNDYzM1qg\n" \
    "DzANMAsGA1UdFAQEAgIQADAKBggqhkjOPQQDAgNIADBFAiBpsU3KsisnyJfGr9eO\n" \
    "L25oXZXqzPRbMHJM0bbPOpPmMAIhAINmk8X4oruz0Lv4tgg2iaWhgQdz84PFdnQ9\n" \
    "WQg18lRW\n"                                                         \
    "-----END X509 CRL-----\n"
