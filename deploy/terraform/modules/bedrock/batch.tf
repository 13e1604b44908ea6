# Batch inference: request files in, vectors out, by a role of Bedrock's own on one prefix.
resource "aws_iam_role" "batch" {
  name        = "${var.name}-bedrock-batch"
  description = "Bedrock reads request files of batch inference and writes their vectors"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "bedrock.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.account_id }
        ArnEquals    = { "aws:SourceArn" = local.jobs }
      }
    }]
  })
}

resource "aws_iam_role_policy" "batch" {
  name = "batch"
  role = aws_iam_role.batch.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid      = "List"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = ["arn:${var.partition}:s3:::${var.bucket}"]
        Condition = {
          StringLike   = { "s3:prefix" = [trimsuffix(var.batch_prefix, "/"), "${var.batch_prefix}*"] }
          StringEquals = { "aws:ResourceAccount" = [var.account_id] }
        }
      },
      {
        Sid       = "Files"
        Effect    = "Allow"
        Action    = ["s3:GetObject", "s3:PutObject"]
        Resource  = ["arn:${var.partition}:s3:::${var.bucket}/${var.batch_prefix}*"]
        Condition = { StringEquals = { "aws:ResourceAccount" = [var.account_id] } }
      },
      {
        Sid       = "Key"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = [var.bucket_key_arn]
        Condition = { StringEquals = { "kms:ViaService" = ["s3.${var.region}.amazonaws.com"] } }
      },
      ], length(local.profiles) == 0 ? [] : [{
        # A job over a profile asks the model in the profile's regions, as this role.
        Sid      = "Profiles"
        Effect   = "Allow"
        Action   = ["bedrock:InvokeModel"]
        Resource = concat(local.profiles, local.profile_models)
    }])
  })
}

# What a run needs beside its rights on the prefix, to start jobs and follow them.
resource "aws_iam_policy" "batch" {
  name        = "${var.name}-bedrock-batch"
  description = "Starts, follows and stops jobs of batch inference"

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Start"
        Effect   = "Allow"
        Action   = ["bedrock:CreateModelInvocationJob"]
        Resource = concat(local.models, [local.jobs])
      },
      {
        Sid      = "Follow"
        Effect   = "Allow"
        Action   = ["bedrock:GetModelInvocationJob", "bedrock:StopModelInvocationJob"]
        Resource = local.jobs
      },
      {
        # AWS takes no resource for it.
        Sid      = "List"
        Effect   = "Allow"
        Action   = ["bedrock:ListModelInvocationJobs"]
        Resource = "*"
      },
      {
        Sid       = "PassRole"
        Effect    = "Allow"
        Action    = ["iam:PassRole"]
        Resource  = "arn:${var.partition}:iam::${var.account_id}:role/${var.name}-bedrock-batch"
        Condition = { StringEquals = { "iam:PassedToService" = "bedrock.amazonaws.com" } }
      },
    ]
  })
}
