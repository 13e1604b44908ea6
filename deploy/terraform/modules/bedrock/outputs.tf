output "invoke_policy_arn" {
  description = "Policy of who asks the models, for the module irsa."
  value       = aws_iam_policy.invoke.arn
}

output "batch_policy_arn" {
  description = "Policy of who starts jobs of batch inference, for the module irsa."
  value       = aws_iam_policy.batch.arn
}

output "batch_role_arn" {
  description = "Role that a job of batch inference is given."
  value       = aws_iam_role.batch.arn
}

output "batch_uri" {
  description = "Where request files and vectors of batch inference lie."
  value       = "s3://${var.bucket}/${var.batch_prefix}"
}
