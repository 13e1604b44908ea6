# What the endpoint itself may do.
resource "aws_iam_role" "this" {
  name        = "${var.name}-endpoint"
  description = "SageMaker endpoint ${var.name}: reads its model and its image, writes its log"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "sagemaker.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  name = "endpoint"
  role = aws_iam_role.this.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Model"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = "arn:${var.partition}:s3:::${var.bucket}/${var.model_prefix}*"
      },
      {
        Sid       = "ListModel"
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = "arn:${var.partition}:s3:::${var.bucket}"
        Condition = { StringLike = { "s3:prefix" = ["${var.model_prefix}*"] } }
      },
      {
        Sid       = "ModelKey"
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = var.model_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
      },
      {
        Sid      = "Image"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = var.repository_arn
      },
      {
        # AWS takes no resource for it.
        Sid      = "Registry"
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = "*"
      },
      {
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
        Resource = "arn:${var.partition}:logs:${var.region}:${var.account_id}:log-group:${local.log_group}:*"
      },
      {
        # AWS takes no resource for it, but a namespace.
        Sid       = "Metrics"
        Effect    = "Allow"
        Action    = ["cloudwatch:PutMetricData"]
        Resource  = "*"
        Condition = { StringLike = { "cloudwatch:namespace" = ["AWS/SageMaker", "/aws/sagemaker/*"] } }
      },
    ]
  })
}

# What the callers need, as embedmill with model.backend = "sagemaker".
resource "aws_iam_policy" "invoke" {
  name        = "${var.name}-invoke"
  description = "Asks the SageMaker endpoint ${var.name}"

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "Invoke"
      Effect   = "Allow"
      Action   = ["sagemaker:InvokeEndpoint"]
      Resource = local.endpoint_arn
    }]
  })
}
