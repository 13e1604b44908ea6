locals {
  account_root = "arn:${var.partition}:iam::${var.account_id}:root"

  # In a key's policy "*" is this key. The account's own statement lets IAM policies speak for the key.
  account_statement = {
    Sid       = "Account"
    Effect    = "Allow"
    Principal = { AWS = local.account_root }
    Action    = "kms:*"
    Resource  = "*"
  }

  actions = [
    "kms:Decrypt", "kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"
  ]

  service_statements = [for service in var.services : {
    Sid       = join("", [for word in split(".", service) : title(word)])
    Effect    = "Allow"
    Principal = { Service = service }
    Action    = local.actions
    Resource  = "*"
    Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
  }]

  # CloudWatch Logs sends no source account, and names the log group in the encryption context.
  log_statements = [for region in var.logs ? [var.region] : [] : {
    Sid       = "Logs"
    Effect    = "Allow"
    Principal = { Service = "logs.${region}.amazonaws.com" }
    Action    = local.actions
    Resource  = "*"
    Condition = {
      ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${var.partition}:logs:${region}:${var.account_id}:log-group:*" }
    }
  }]
}

resource "aws_kms_key" "this" {
  description             = var.description
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat([local.account_statement], local.service_statements, local.log_statements)
  })

  # A key that is scheduled for deletion makes unreadable at once what it encrypted, also where a destroy fails half-way.
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id
}
