output "topic_arn" {
  description = "ARN of the topic that alarms go to; subscribe a chat or a pager to it."
  value       = aws_sns_topic.this.arn
}
