"""Create a bucket in the object store, unless it exists."""

import sys

import boto3
from botocore.exceptions import ClientError

try:
    boto3.client("s3").create_bucket(Bucket=sys.argv[1])
except ClientError as error:
    if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
        raise
