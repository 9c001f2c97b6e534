#!/usr/bin/env python3
"""Makes an S3 server of scripts/servers ready for the tests: its buckets, and a proof that it stores.

    tests/support/s3_ready.py ENTRY [--policy-for USER] [PID...]

ENTRY is the server's entry for s3.json. Waits, a minute at most and only while the processes PID live, until
a signed PUT and DELETE of an object succeed, and until the limited key reads and is refused a PUT. With
--policy-for, a policy of the bucket lets that user read. Exit code 1 and one line on stderr otherwise.
"""

import datetime
import hashlib
import hmac
import http.client
import json
import os
import sys
import time
import urllib.parse


def sign(secret, day, region, text):
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def quote(text):
    return urllib.parse.quote(text, safe="-_.~")


def request(entry, keys, method, path, query=(), headers=(), body=b"", sha256=None, clock=0):
    """One signed request (AWS Signature Version 4): status, headers and body of its answer.

    `keys` is an access key and its secret; `sha256` is what to claim of the body, `clock` seconds to be wrong by.
    """
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=clock)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    sha256 = sha256 or hashlib.sha256(body).hexdigest()
    host = f"{entry['host']}:{entry['port']}"
    headers = {name.lower(): value for name, value in dict(headers).items()}
    headers |= {"host": host, "x-amz-date": stamp, "x-amz-content-sha256": sha256}
    path = urllib.parse.quote(path, safe="/-_.~")
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in sorted(dict(query).items()))
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    canonical = "\n".join([method, path, query, lines, names, sha256])
    scope = f"{day}/{entry['region']}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = sign(keys[1], day, entry["region"], text)
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys[0]}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    connection = http.client.HTTPConnection(entry["host"], entry["port"], timeout=30)
    try:
        connection.request(method, path + (f"?{query}" if query else ""), body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def make_ready(entry, policy_for):
    """Says why the server is not ready, or nothing. May be called again: what is made already is no error."""
    full = entry["access_key"], entry["secret_key"]
    limited = entry["limited_access_key"], entry["limited_secret_key"]
    bucket, locked = f"/{entry['bucket']}", f"/{entry['locked_bucket']}"
    probe = f"{bucket}/ready"
    lock = {"x-amz-bucket-object-lock-enabled": "true"}
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam:::user/{policy_for}"]},
                "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:GetBucketLocation"],
                "Resource": [f"arn:aws:s3:::{entry['bucket']}", f"arn:aws:s3:::{entry['bucket']}/*"],
            }
        ],
    }
    steps = [("make the bucket", (200, 409), full, "PUT", bucket, {})]
    if entry["locked_bucket"]:
        steps += [("make the bucket with locks", (200, 409), full, "PUT", locked, {"headers": lock})]
    if policy_for:
        query, body = {"policy": ""}, json.dumps(policy).encode()
        steps += [("let the limited key read", (200, 204), full, "PUT", bucket, {"query": query, "body": body})]
    steps += [("put an object", (200,), full, "PUT", probe, {"body": b"ready"})]
    if entry["limited_access_key"]:
        steps += [
            ("get it with the limited key", (200,), limited, "GET", probe, {}),
            ("be refused with the limited key", (403,), limited, "PUT", probe, {"body": b"no"}),
        ]
    steps += [("delete the object", (204,), full, "DELETE", probe, {})]
    for what, expected, keys, method, path, more in steps:
        try:
            status, _, body = request(entry, keys, method, path, **more)
        except (OSError, http.client.HTTPException) as error:
            return f"cannot {what}: {error}"
        if status not in expected:
            return f"cannot {what}: status {status}: {body.decode(errors='replace').strip()[:300]}"
    return None


def main(arguments):
    with open(arguments.pop(0), encoding="utf-8") as file:
        entry = json.load(file)
    policy_for = None
    if arguments and arguments[0] == "--policy-for":
        policy_for, arguments = arguments[1], arguments[2:]
    end = time.monotonic() + 60
    while problem := make_ready(entry, policy_for):
        dead = [process for process in arguments if not os.path.exists(f"/proc/{process}")]
        if dead or time.monotonic() > end:
            sys.exit(f"{entry['name']}: {problem}{'; the server ended' if dead else ''}")
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1:])
