terraform {
  required_version = ">= 1.9, < 2.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.25, < 7.0"
    }
  }

  # Bucket, key and region are given to init: -backend-config=backend.hcl
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region
  # Refuses to touch another account, whatever credentials are found.
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = local.tags
  }
}
