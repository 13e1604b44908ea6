output "endpoint_name" {
  description = "Name of the endpoint: model.remote.model of the configuration."
  value       = aws_sagemaker_endpoint.this.name
}

output "endpoint_arn" {
  description = "ARN of the endpoint."
  value       = aws_sagemaker_endpoint.this.arn
}

output "invoke_policy_arn" {
  description = "Policy of who asks the endpoint, for the module irsa."
  value       = aws_iam_policy.invoke.arn
}
