locals {
  # The issuer's host and path, as the condition keys spell it.
  issuer = trimprefix(var.oidc_issuer, "https://")

  prefixes = {
    for name, bucket in var.buckets : name => distinct(concat(bucket.read_prefixes, bucket.write_prefixes))
  }

  list_statements = [for name, bucket in var.buckets : {
    Sid       = "List${title(name)}"
    Effect    = "Allow"
    Action    = ["s3:ListBucket"]
    Resource  = [bucket.arn]
    Condition = { StringLike = { "s3:prefix" = flatten([for prefix in local.prefixes[name] : [trimsuffix(prefix, "/"), "${prefix}*"]]) } }
  }]

  read_statements = [for name, bucket in var.buckets : {
    Sid      = "Read${title(name)}"
    Effect   = "Allow"
    Action   = ["s3:GetObject"]
    Resource = [for prefix in local.prefixes[name] : "${bucket.arn}/${prefix}*"]
  }]

  write_statements = [for name, bucket in var.buckets : {
    Sid      = "Write${title(name)}"
    Effect   = "Allow"
    Action   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    Resource = [for prefix in bucket.write_prefixes : "${bucket.arn}/${prefix}*"]
  } if length(bucket.write_prefixes) > 0]

  key_statements = [for name, bucket in var.buckets : {
    Sid      = "Key${title(name)}"
    Effect   = "Allow"
    Action   = length(bucket.write_prefixes) > 0 ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
    Resource = [bucket.kms_key_arn]
    # By S3 alone: the role opens no other ciphertext of that key.
    Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
  } if bucket.kms_key_arn != null]

  secret_statements = length(var.secrets) > 0 ? [{
    Sid      = "Secrets"
    Effect   = "Allow"
    Action   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    Resource = var.secrets
  }] : []

  statements = concat(
    local.list_statements, local.read_statements, local.write_statements, local.key_statements, local.secret_statements
  )
}

resource "aws_iam_role" "this" {
  name                 = var.name
  description          = var.description
  max_session_duration = 3600
  permissions_boundary = var.permissions_boundary

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "ServiceAccount"
      Effect    = "Allow"
      Principal = { Federated = var.oidc_provider_arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "${local.issuer}:aud" = "sts.amazonaws.com"
          "${local.issuer}:sub" = [for account in var.service_accounts : "system:serviceaccount:${var.namespace}:${account}"]
        }
      }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  count = length(var.buckets) + length(var.secrets) > 0 ? 1 : 0

  name = "data"
  role = aws_iam_role.this.id

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = local.statements
  })
}

# By name: an ARN is known only after its policy was made, and for_each needs its keys before.
resource "aws_iam_role_policy_attachment" "this" {
  for_each = var.policies

  role       = aws_iam_role.this.name
  policy_arn = each.value
}
